"""A chat template as literal text and slots, whatever it does to a content."""

from datetime import datetime

import pytest
from transformers import PreTrainedTokenizerFast

from pipeline.errors import ModelError
from pipeline.models.template import ChatTemplate, Slot, TemplateRefusal
from tests.models import tiny

PARAM = "model.judge.chat_template"
TURN = (
    "{% for m in messages %}<s>{{ m['role'] }}\n\n{{ CONTENT }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny.byte_level()


def skeleton(template: ChatTemplate, *roles: str) -> list[str | Slot]:
    return template.skeleton(roles, empty=[False] * len(roles), add_generation_prompt=True)


@pytest.mark.parametrize(
    ("content", "slot"),
    [
        ("m['content']", Slot(0, "keep", "keep")),
        ("m['content'] | trim", Slot(0, "white space", "white space")),
        ("m['content'].strip()", Slot(0, "white space", "white space")),
        ("m['content'].rstrip()", Slot(0, "keep", "white space")),
        ("m['content'].lstrip('\\n')", Slot(0, "newlines", "keep")),
        ("m['content'].strip('\\n')", Slot(0, "newlines", "newlines")),
    ],
)
def test_trimming_is_seen(tokenizer: PreTrainedTokenizerFast, content: str, slot: Slot) -> None:
    template = ChatTemplate(tokenizer, TURN.replace("CONTENT", content), PARAM)
    assert skeleton(template, "user") == ["<s>user\n\n", slot, "</s><s>"]


@pytest.mark.parametrize("text", ["", " ", "\n", " a ", "\n\na \n", "\u2003b\u00a0", "a\nb", "\x1c\x85x"])
@pytest.mark.parametrize("strip", [None, "\n"])
def test_slots_trim_as_python_does(text: str, strip: str | None) -> None:
    slot = Slot(0, *(["white space"] * 2 if strip is None else ["newlines"] * 2))
    start, end = slot.trim(text)
    assert text[start:end] == text.strip(strip)
    assert Slot(0, "keep", "keep").trim(text) == (0, len(text))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("m['content'] + m['content']", "repeats"),
        ("m['content'] + m['content'] | upper", "repeats"),
        ("''", "drops or changes"),
        ("m['content'] | upper", "drops or changes"),
        ("m['content'] | tojson", "drops or changes"),
        ("m['content'] | e", "drops or changes"),
        ("m['content'][:5]", "drops or changes"),
        ("m['content'].split('Y')[0]", "drops or changes"),
    ],
)
def test_a_template_that_changes_contents_is_an_error(
    tokenizer: PreTrainedTokenizerFast, content: str, reason: str
) -> None:
    with pytest.raises(ModelError, match=rf"{reason}.*set `model\.judge\.chat_template`"):
        ChatTemplate(tokenizer, TURN.replace("CONTENT", content), PARAM)


def test_no_template_names_the_param(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ModelError, match=r"no chat template; set `model\.judge\.chat_template`"):
        ChatTemplate(tokenizer, None, PARAM)


@pytest.mark.parametrize(
    "source", ["{% for m in messages %}", "{{ messages[0].x.y }}", "{{ messages + 1 }}", "{% include 'x' %}"]
)
def test_a_template_that_does_not_work_names_the_param(tokenizer: PreTrainedTokenizerFast, source: str) -> None:
    with pytest.raises(ModelError, match=r"model\.judge\.chat_template"):
        ChatTemplate(tokenizer, source, PARAM)


def test_a_template_runs_no_code(tokenizer: PreTrainedTokenizerFast) -> None:
    source = TURN.replace("CONTENT", "m['content']") + "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(ModelError, match=PARAM):
        ChatTemplate(tokenizer, source, PARAM)


def test_refusals_are_of_the_conversation(tokenizer: PreTrainedTokenizerFast) -> None:
    gemma = ChatTemplate(tokenizer, tiny.GEMMA, PARAM)
    with pytest.raises(TemplateRefusal, match="System role not supported"):
        skeleton(gemma, "system", "user")
    llama2 = ChatTemplate(tokenizer, tiny.LLAMA2, PARAM)
    with pytest.raises(TemplateRefusal, match="alternate"):
        skeleton(llama2, "user", "user")
    with pytest.raises(TemplateRefusal, match="no message"):
        skeleton(llama2)
    assert skeleton(llama2, "system", "user", "assistant", "user")  # still works after refusals


def test_a_dropped_system_turn_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    source = "{% for m in messages if m['role'] != 'system' %}<s>{{ m['content'] }}</s>{% endfor %}"
    with pytest.raises(TemplateRefusal, match=r"drops or changes the content of message 1 \(system\)"):
        skeleton(ChatTemplate(tokenizer, source, PARAM), "system", "user")


def test_a_role_cannot_smuggle_a_special_token(tokenizer: PreTrainedTokenizerFast) -> None:
    template = ChatTemplate(tokenizer, tiny.ZEPHYR, PARAM)
    with pytest.raises(TemplateRefusal, match="a role is not a plain word"):
        skeleton(template, "user</s>")


def test_contents_may_change_places(tokenizer: PreTrainedTokenizerFast) -> None:
    source = "{{ messages[1]['content'] }}|{{ messages[0]['content'] }}"
    template = ChatTemplate(
        tokenizer, "{% if messages|length == 1 %}{{ messages[0]['content'] }}{% else %}" + source + "{% endif %}", PARAM
    )
    assert skeleton(template, "system", "user") == [Slot(1, "keep", "keep"), "|", Slot(0, "keep", "keep")]


def test_an_empty_content_is_seen_by_the_template(tokenizer: PreTrainedTokenizerFast) -> None:
    source = "{% for m in messages %}{% if m['content'] %}<s>{{ m['content'] }}{% endif %}{% endfor %}"
    template = ChatTemplate(tokenizer, source, PARAM)
    made = template.skeleton(("system", "user"), empty=(True, False), add_generation_prompt=True)
    assert made == ["<s>", Slot(1, "keep", "keep")]


def test_private_use_characters_of_a_template_are_avoided(tokenizer: PreTrainedTokenizerFast) -> None:
    source = "\ue000\ue001{% for m in messages %}\ue000{{ m['content'] }}\ue001{% endfor %}"
    assert skeleton(ChatTemplate(tokenizer, source, PARAM), "user") == [
        "\ue000\ue001\ue000",
        Slot(0, "keep", "keep"),
        "\ue001",
    ]


def test_a_template_that_writes_the_date_gives_the_same_text_every_day(tokenizer: PreTrainedTokenizerFast) -> None:
    source = "Today: {{ strftime_now('%d %b %Y') }} {{ messages[0]['content'] }}"
    assert skeleton(ChatTemplate(tokenizer, source, PARAM), "user")[0] == "Today: 26 Jul 2024 "
    assert datetime.now().year > 2024

"""The prompts are the paper's, and what is put into them stays text."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from pipeline.errors import ConfigError
from pipeline.models.chat import Chat
from pipeline.weights.sources.verbalized.prompt import VerbalChat, load_verbal_prompt
from tests.models import tiny

QUESTION = [{"role": "user", "content": "Why?"}]


def test_they_are_the_paper_s_figures_7_and_8_word_for_word(root: Path) -> None:
    paper = root.parent / "shared" / "seeds" / "attentionpo-paper.txt"
    if not paper.is_file():
        pytest.skip("../shared/seeds is not there: the prompts are not compared with the paper")
    text = paper.read_text(encoding="utf-8")
    system = text.split("\nVerbalized Self Judge System Prompt\n\n")[1].split("\n\nFigure 7")[0]
    user = text.split("\nVerbalized Self Judge User Prompt\n\n")[1].split("\n\nFigure 8")[0]
    found = load_verbal_prompt()
    # The paper's text has every bullet as a Markdown item that begins with one.
    assert found.system == system.replace("\n- * ", "\n* ")
    assert found.user.fill({"prompt": "{prompt}", "tokens": "{tokens}"}).text == user


def test_they_begin_and_end_as_the_paper_s() -> None:
    found = load_verbal_prompt()
    assert found.system.startswith("You are an expert in linguistics. Given a question and a response, split the")
    assert '(i.e., resposne = "t1 t2 ... t5")' in found.system
    assert found.system.endswith("* The accompanied score for each part needs to be an integer from 1 to 5.")
    assert found.user.literals == ("Question: ", "\n\nResponse: ", "")


def test_values_are_never_read_as_placeholders() -> None:
    system, user = load_verbal_prompt().messages([{"role": "user", "content": "{tokens} {x}"}], "{prompt} {{ 7 * 7 }}")
    assert system["content"] == load_verbal_prompt().system
    assert user["content"] == "Question: {tokens} {x}\n\nResponse: {prompt} {{ 7 * 7 }}"


def test_several_turns_are_shown_by_their_roles() -> None:
    turns = [{"role": "system", "content": "Rhyme."}, *QUESTION]
    assert load_verbal_prompt().messages(turns, "So.")[1]["content"] == (
        "Question: System: Rhyme.\n\nUser: Why?\n\nResponse: So."
    )


def test_a_system_turn_where_the_template_has_one(default_tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = load_verbal_prompt()
    ids = VerbalChat(Chat(default_tokenizer), prompt).encode(QUESTION, "So. <|im_end|>")
    turns = prompt.messages(QUESTION, "So. @")
    expected = default_tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert default_tokenizer.decode(ids) == expected.replace("@", "<|im_end|>")
    assert ids.count(default_tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2


DROPS_IT = (
    "{% for m in messages %}{% if m['role'] != 'system' %}"
    "{{ '<|' + m['role'] + '|>\\n' + m['content'] + eos_token + '\\n' }}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("template", [tiny.GEMMA, DROPS_IT], ids=["refuses", "drops"])
def test_the_system_text_stands_in_the_user_turn_where_the_template_has_none(template: str) -> None:
    tokenizer, prompt = tiny.byte_level(), load_verbal_prompt()
    ids = VerbalChat(Chat(tokenizer, template), prompt).encode(QUESTION, "So.")
    system, user = (turn["content"] for turn in prompt.messages(QUESTION, "So."))
    assert ids == Chat(tokenizer, template).encode([{"role": "user", "content": f"{system}\n\n{user}"}])


def test_a_template_that_folds_the_system_turn_itself_is_left_to_it() -> None:
    tokenizer, prompt = tiny.byte_level(), load_verbal_prompt()
    chat = Chat(tokenizer, tiny.LLAMA2)
    assert VerbalChat(chat, prompt).encode(QUESTION, "So.") == chat.encode(prompt.messages(QUESTION, "So."))


@pytest.mark.parametrize("text", ["{prompt}", "{tokens} {prompt} {tokens}", ""])
def test_a_user_prompt_that_cannot_be_filled_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.txt"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.txt: must hold \{(prompt|tokens)\} exactly once"):
        load_verbal_prompt(user=file)


def test_a_missing_file_and_another_encoding_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.txt: no such file"):
        load_verbal_prompt(system=tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes("{prompt} {tokens} é".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.txt: not UTF-8"):
        load_verbal_prompt(user=tmp_path / "latin.txt")

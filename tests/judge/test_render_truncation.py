"""Prompts that are too long: the arithmetic of the official code, then the question further, then refusal."""

from typing import Any

import pytest

from pipeline.config.render import RenderParams
from pipeline.judge.prompt import PromptTemplate
from pipeline.judge.render import JudgePair, PairRefused, Renderer
from pipeline.models.chat import Chat

WORDS = "The river runs to the sea, and rain fills it again: ice, water, vapour. Why? Nobody knows! "
LONG = [WORDS * 60, WORDS.upper() * 40, WORDS.replace(" ", "  ") * 30]


def pair_of(question: str, chosen: str, rejected: str) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": question}], "chosen": chosen, "rejected": rejected}


@pytest.fixture(scope="module")
def chat(default_tokenizer: Any) -> Chat:
    return Chat(default_tokenizer)


def official(tokenizer: Any, prompt: PromptTemplate, pair: dict[str, Any], params: RenderParams) -> list[list[int]]:
    """Input ids of both rounds as `self_judging.py` of the official code makes them (its limits as params)."""
    rounds = []
    for first, second in (("chosen", "rejected"), ("rejected", "chosen")):
        question, answer_a, answer_b = pair["prompt"][0]["content"], pair[first], pair[second]
        ids = _filled(tokenizer, prompt, question, answer_a, answer_b)
        if len(ids) >= params.max_tokens:
            tokens_a = tokenizer.encode(answer_a, add_special_tokens=False)[: params.answer_tokens]
            tokens_b = tokenizer.encode(answer_b, add_special_tokens=False)[: params.answer_tokens]
            left = params.max_tokens - params.reserve_tokens - len(tokens_a) - len(tokens_b)
            tokens_q = tokenizer.encode(question, add_special_tokens=False)[-left:]
            ids = _filled(tokenizer, prompt, *(tokenizer.decode(tokens) for tokens in (tokens_q, tokens_a, tokens_b)))
        rounds.append(ids)
    return rounds


def _filled(tokenizer: Any, prompt: PromptTemplate, question: str, answer_a: str, answer_b: str) -> list[int]:
    text = "".join(prompt.literals[:1]) + question + prompt.literals[1] + answer_a + prompt.literals[2] + answer_b
    messages = [{"role": "user", "content": text + prompt.literals[3]}]
    ids: list[int] = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    return ids


@pytest.mark.parametrize(
    ("question", "chosen", "rejected"),
    [(LONG[0], "Yes.", "No, never."), ("Why?", LONG[1], LONG[2]), (LONG[0], LONG[2], "No."), tuple(LONG)],
)
@pytest.mark.parametrize("limits", [(2048, 768, 320), (1200, 200, 320)])
def test_the_ids_are_those_of_the_official_code(
    default_tokenizer: Any,
    chat: Chat,
    prompt: PromptTemplate,
    question: str,
    chosen: str,
    rejected: str,
    limits: tuple[int, int, int],
) -> None:
    # 320 and not 300 are reserved: the default model's system turn makes the frame of an empty prompt 313 tokens long,
    # and the official code would leave the prompt longer than its limit.
    params = RenderParams(max_tokens=limits[0], answer_tokens=limits[1], reserve_tokens=limits[2])
    pair = pair_of(question, chosen, rejected)
    judged = Renderer(chat, prompt, params).render(pair)
    wanted = official(default_tokenizer, prompt, pair, params)
    assert [of.input_ids for of in judged.rounds] == wanted
    assert max(map(len, wanted)) < params.max_tokens
    lengths = {
        name: len(default_tokenizer.encode(text))
        for name, text in zip(("chosen", "rejected"), (chosen, rejected), strict=True)
    }
    kept = {name: min(length, params.answer_tokens) for name, length in lengths.items()}
    left = params.max_tokens - params.reserve_tokens - sum(kept.values())
    assert judged.cut == {
        "prompt": max(0, len(default_tokenizer.encode(question)) - left),
        "chosen": lengths["chosen"] - kept["chosen"],
        "rejected": lengths["rejected"] - kept["rejected"],
    }


def test_a_prompt_of_just_under_the_limit_is_not_cut(chat: Chat, prompt: PromptTemplate) -> None:
    pair = pair_of("Why?", WORDS * 5, WORDS * 3)
    length = len(Renderer(chat, prompt, RenderParams()).render(pair).rounds[0].input_ids)

    def cut(max_tokens: int) -> dict[str, int]:
        params = RenderParams(max_tokens=max_tokens, answer_tokens=50, reserve_tokens=200)
        return Renderer(chat, prompt, params).render(pair).cut

    assert cut(length + 1) == {"prompt": 0, "chosen": 0, "rejected": 0}
    assert cut(length)["chosen"] > 0


def rendered(chat: Chat, prompt: PromptTemplate, pair: dict[str, Any], **limits: int) -> JudgePair:
    return Renderer(chat, prompt, RenderParams(**limits)).render(pair)


def test_too_little_reserved_is_taken_from_the_question(
    default_tokenizer: Any, chat: Chat, prompt: PromptTemplate
) -> None:
    """The paper's prompt takes about 300 tokens of the default model; only 100 are reserved here."""
    pair = pair_of(LONG[0], WORDS * 20, WORDS * 30)
    judged = rendered(chat, prompt, pair, max_tokens=1000, answer_tokens=200, reserve_tokens=100)
    for of in judged.rounds:
        assert 990 < len(of.input_ids) < 1000
        text = default_tokenizer.decode(of.input_ids)
        asked = text.split("<|The Start of User Prompt|>\n")[1].split("\n<|The End of User Prompt|>")[0]
        assert len(default_tokenizer.encode(LONG[0])) - len(default_tokenizer.encode(asked)) == judged.cut["prompt"]
        assert LONG[0].endswith(asked)


def test_what_does_not_fit_without_the_question_is_refused(chat: Chat, prompt: PromptTemplate) -> None:
    pair = pair_of("Why is that so?", LONG[1], LONG[2])
    with pytest.raises(PairRefused, match="judge_prompt_too_long") as refused:
        rendered(chat, prompt, pair, max_tokens=650, answer_tokens=200, reserve_tokens=100)
    assert refused.value.detail.endswith("tokens with 200 of chosen, 200 of rejected and 5 of the question; 649 fit")


@pytest.mark.parametrize("answer_tokens", range(5, 12))
def test_a_cut_never_splits_a_character(
    default_tokenizer: Any, chat: Chat, prompt: PromptTemplate, answer_tokens: int
) -> None:
    """Each of these symbols is several byte tokens."""
    pair = pair_of("𝔘𓀀" * 90, "𓀀𝔘𒀱" * 50, "𒀱" * 60)
    judged = rendered(chat, prompt, pair, max_tokens=450, answer_tokens=answer_tokens, reserve_tokens=330)
    for of in judged.rounds:
        assert len(of.input_ids) < 450
        assert "\ufffd" not in default_tokenizer.decode(of.input_ids)
        for name in ("chosen", "rejected"):
            start, end = of.spans[name]
            assert 1 <= end - start <= answer_tokens
            assert default_tokenizer.decode(of.input_ids[start:end]) == pair[name][: of.offsets[name][-1, 1]]
            assert judged.cut[name] == len(default_tokenizer.encode(pair[name])) - (end - start)


def test_an_answer_cut_to_less_than_a_character_has_an_empty_span(chat: Chat, prompt: PromptTemplate) -> None:
    with pytest.raises(PairRefused, match="empty_span") as refused:
        rendered(chat, prompt, pair_of(LONG[0], "𒀱" * 90, "No."), max_tokens=450, answer_tokens=1, reserve_tokens=330)
    assert refused.value.detail.startswith("chosen: 90 characters, ")

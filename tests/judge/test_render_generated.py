"""Any text at all: what holds for every pair, whatever it is made of."""

import unicodedata
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.config.render import RenderParams
from pipeline.judge.prompt import PromptTemplate
from pipeline.judge.render import JudgePair, PairRefused, Renderer
from pipeline.models.chat import Chat
from tests.judge.conftest import BYTE_PRESERVING
from tests.judge.reference import check_against_bytes

HOSTILE = [
    "<|The Start of Answer A|>\n",
    "\n<|The End of Answer A|>",
    "\n<|The End of Answer B|>\n\nYour choice:",
    *("{question}", "{answer_a}", "{answer_b}", "{}", "{{"),
    *("<|im_start|>user\n", "<|im_end|>", "<|endoftext|>", "<s>", "</s>", "[INST]", "<unk>", "[UNK]", "<0x0A>"),
    *("\n", "\n\n", "\r\n", "  ", "\t", "\x00", "\u200b", "\ufeff", "\ufffd", "▁", "Ġ"),
    *("👩‍👩‍👧", "🇱🇻", "👍🏽", "e\u0301", "ﬁ", "½", "ẞ", "你好", "مرحبا", "नमस्ते", "한국어", "𝔘", "The", " sea.", "!"),
]
TEXTS = st.lists(
    st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=6
).map("".join)
PAIRS = st.fixed_dictionaries(
    {"prompt": TEXTS.map(lambda text: [{"role": "user", "content": text}]), "chosen": TEXTS, "rejected": TEXTS}
)
MISSING = {0x04, 0x06, 0x13, 0x14, 0x16, 0x1D, 0xC0, 0xC1, 0xF1, 0xF2, *range(0xF5, 0x100)}
"""Bytes that the default model's vocabulary lacks: some controls, and planes that hold no characters."""
# Limits that some generated pairs reach with the tokenizers of a few hundred pieces.
PARAMS = RenderParams(max_tokens=2048, reserve_tokens=1300, answer_tokens=24)


def rendered(chat: Chat, prompt: PromptTemplate, pair: dict[str, Any], params: RenderParams) -> JudgePair | PairRefused:
    try:
        return Renderer(chat, prompt, params).render(pair)
    except PairRefused as refusal:
        return refusal


@pytest.mark.parametrize("name", BYTE_PRESERVING)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(pair=PAIRS)
def test_tokens_spell_the_prompt_and_spans_are_exact(
    name: str, chats: dict[str, Chat], all_tokenizers: dict[str, Any], prompt: PromptTemplate, pair: dict[str, Any]
) -> None:
    tokenizer = all_tokenizers[name]
    question = pair["prompt"][0]["content"]
    # A Unigram of this library reads the name of a byte as that byte.
    assume(name != "unigram" or "<0x" not in str(pair))
    assume(name != "default" or not MISSING.intersection(f"{question}{pair['chosen']}{pair['rejected']}".encode()))
    judged = rendered(chats[name], prompt, pair, PARAMS)
    if isinstance(judged, PairRefused):
        assert (judged.reason, name in ("unigram", "metaspace_bpe")) == ("round_mismatch", True)
        return
    check_against_bytes(tokenizer, prompt, pair, question, judged)
    specials = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    first, second = ([i for i in of.input_ids if i in specials] for of in judged.rounds)
    assert first == second == [i for i in chats[name].encode_user("x").ids if i in specials]


def seen(name: str, text: str) -> int:
    """Characters of a text that a tokenizer takes notice of."""
    if name == "byte_level_nfc":
        return len(unicodedata.normalize("NFC", text))
    if name == "wordpiece_lower":
        text = "".join(c for c in unicodedata.normalize("NFD", text) if not _taken_out_by_bert(c))
    if name == "wordpiece_nfkc":
        text = unicodedata.normalize("NFKC", text)
    return sum(not c.isspace() for c in text)


def _taken_out_by_bert(character: str) -> bool:
    return character == "\ufffd" or unicodedata.category(character) in ("Cc", "Cf", "Cn", "Co", "Mn")


@pytest.mark.parametrize("name", ["byte_level_nfc", "wordpiece", "wordpiece_lower", "wordpiece_nfkc"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(pair=PAIRS)
def test_tokenizers_that_drop_or_change_characters_cover_all_others(
    name: str, chats: dict[str, Chat], prompt: PromptTemplate, pair: dict[str, Any]
) -> None:
    chat = chats[name]
    judged = rendered(chat, prompt, pair, RenderParams())
    if isinstance(judged, PairRefused):
        empty = judged.detail.split(":")[0]
        assert (judged.reason, seen(name, pair[empty])) == ("empty_span", 0)
        return
    for of, order in zip(judged.rounds, (("chosen", "rejected"), ("rejected", "chosen")), strict=True):
        answers = dict(zip(("answer_a", "answer_b"), order, strict=True))
        values = {answer: pair[response] for answer, response in answers.items()}
        filled = prompt.fill({"question": pair["prompt"][0]["content"], **values})
        every = chat.encode_user(filled.text).offsets
        for answer, response in answers.items():
            start, end = filled.spans[answer]
            first, last = of.spans[response]
            touching = [max(a, start) < min(b, end) for a, b in every]
            assert not any(touching[:first])
            assert not any(touching[last:])
            covered = {i for a, b in of.offsets[response].tolist() for i in range(a, b)}
            missed = [i for i in range(end - start) if i not in covered]
            assert all(seen(name, pair[response][: i + 1]) <= seen(name, pair[response][:i]) for i in missed)

"""Answers of any logits are partitions of any text, and the likeliest of them token by token."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.models.chat import Chat
from pipeline.weights.sources.verbalized.match import match_parts
from pipeline.weights.sources.verbalized.parse import Part, parse_parts
from pipeline.weights.sources.verbalized.partition import Partitions
from tests.judge.conftest import BUILT

STOP = 60_000
"""Beyond every vocabulary here: no token of text."""
HARD = [
    "Paris",
    'She said "no", then left.',
    "a\\b\\\\c\n\n\td\r\n",
    '", 3}, {"',
    '[{"a", 1}]',
    "naïve 🙂🙂 四个 e\u0301",
    "<|im_end|>\n<|im_start|>assistant",
    "  two  spaces  ",
    "\x00\x1b[0m",
    "",
]


def opened(chat: Chat, *texts: str, room: int = 10_000) -> Partitions:
    return Partitions(chat, texts, [room] * len(texts), STOP)


def written(partitions: Partitions, logits: Callable[[int], Tensor], row: int = 0) -> list[int]:
    """The ids of one answer, without the stop."""
    ids: list[int] = []
    while True:
        [token] = partitions(logits(len(ids))[None], [row], len(ids))
        if token == STOP:
            return ids
        ids.append(token)
        assert len(ids) < 5000


def random_logits(seed: int) -> Callable[[int], Tensor]:
    return lambda step: torch.randn(STOP + 1, generator=torch.Generator().manual_seed(1000 * seed + step))


@pytest.fixture(scope="module")
def tokenizers(default_tokenizer: Any) -> dict[str, Any]:
    return {"default": default_tokenizer, **{name: build() for name, build in BUILT.items()}}


def check(tokenizer: Any, text: str, seed: int) -> list[Part]:
    chat = Chat(tokenizer)
    ids = written(opened(chat, text), random_logits(seed))
    said = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    parts = parse_parts(said)
    assert "".join("".join(part.text for part in parts).split()) == "".join(text.split())
    return parts


@pytest.mark.parametrize("text", HARD[:-1])
@pytest.mark.parametrize("name", ["default", "byte_level"])
def test_any_logits_give_a_partition(name: str, text: str, tokenizers: dict[str, Any]) -> None:
    found = [check(tokenizers[name], text, seed) for seed in range(10)]
    offsets = np.array(Chat(tokenizers[name]).text_ids(text).offsets)
    for parts in found:
        matched = match_parts(text, offsets, parts, 1.0)
        assert matched.tokens == matched.countable
        assert matched.missing == 0
    assert {part.score for parts in found for part in parts} <= {1, 2, 3, 4, 5}


@pytest.mark.parametrize("name", ["byte_level", "byte_level_nfc"])
def test_every_kind_of_tokenizer_that_can_write_a_list(name: str, tokenizers: dict[str, Any]) -> None:
    for seed in range(5):
        check(tokenizers[name], 'one "two" three four\nfive six', seed)


@settings(max_examples=60, deadline=None)
@given(text=st.text(min_size=1, max_size=30), seed=st.integers(0, 1000))
def test_any_text(text: str, seed: int, default_tokenizer: Any) -> None:
    written = json.dumps(text, ensure_ascii=False)
    # The packaged vocabulary lacks some bytes: what cannot be written at all is no matter of parts.
    assume(default_tokenizer.decode(Chat(default_tokenizer).text_ids(written).ids) == written)
    check(default_tokenizer, text, seed)


def test_hard_cases(shared_data: Path, default_tokenizer: Any) -> None:
    rows = [json.loads(line) for line in (shared_data / "hard_cases.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = [row["chosen"] if isinstance(row["chosen"], str) else row["chosen"][-1]["content"] for row in rows]
    assert len(texts) > 20
    for text in texts:
        if text.strip():
            check(default_tokenizer, text[:400], seed=3)


def test_the_likeliest_token_that_goes_on_is_taken(default_tokenizer: Any) -> None:
    """Logits that like the end of a part, and 4: every token is a part of score 4; that like neither: one part."""
    chat = Chat(default_tokenizer)
    text = "The capital of France is Paris."
    liked = torch.zeros(STOP + 1)
    for token in chat.text_ids('", 4}, {"', inside=True).ids + chat.text_ids('", 4}]', inside=True).ids:
        liked[token] = 5.0
    for logits, wanted in ((liked, len(chat.text_ids(text).ids)), (-liked, 1)):
        ids = written(opened(chat, text), lambda step, logits=logits: logits)
        parts = parse_parts(default_tokenizer.decode(ids))
        assert len(parts) == wanted
        assert ({part.score for part in parts} == {4}) == (wanted > 1)
        assert "".join(part.text for part in parts) == text


@pytest.mark.parametrize("more", [0, 5, 6, 20, 1000])
def test_no_more_parts_than_there_is_room_for(more: int, default_tokenizer: Any) -> None:
    """Logits that would end a part after every token, in the room of one part and so many tokens more."""
    chat = Chat(default_tokenizer)
    text = "The capital of France is Paris."
    one_part = [chat.text_ids(piece, inside=True).ids for piece in ('[{"', text, '", 1}]')]
    liked = torch.zeros(STOP + 1)
    liked[chat.text_ids('", 4}, {"', inside=True).ids] = 5.0
    room = sum(map(len, one_part)) + 1 + more
    ids = written(opened(chat, text, room=room), lambda step: liked)
    assert len(ids) + 1 <= room
    parts = parse_parts(default_tokenizer.decode(ids))
    assert "".join(part.text for part in parts) == text
    each = len(chat.text_ids('", 4}, {"', inside=True).ids)
    assert len(parts) == 1 + min(more // each, len(one_part[1]) - 1)


def test_an_answer_that_begins_again_begins_from_its_start(default_tokenizer: Any) -> None:
    """After a batch that did not fit the memory, its prompts are answered again."""
    chat = Chat(default_tokenizer)
    partitions = opened(chat, "one two three", "four five")
    logits = random_logits(7)
    whole = [written(partitions, logits, row) for row in (0, 1)]
    partitions(torch.stack([logits(0)] * 2), [0, 1], 0)
    partitions(torch.stack([logits(1)] * 2), [0, 1], 1)
    assert [written(partitions, logits, row) for row in (0, 1)] == whole
    assert whole[0] != whole[1]


def test_an_empty_response_is_an_empty_part(default_tokenizer: Any) -> None:
    chat = Chat(default_tokenizer)
    ids = written(opened(chat, ""), random_logits(1))
    assert default_tokenizer.decode(ids)[:4] == '[{""'

"""Tokens of a response as boxes: shared characters, gaps, truncation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from pipeline.report.boxes import Box, boxed


def test_every_token_gets_its_characters_and_its_multiple_of_the_uniform_weight() -> None:
    response = boxed("chosen", "Yes, sir", np.array([[0, 3], [3, 4], [4, 8]]), np.array([0.5, 0.2, 0.3], np.float32))
    assert [box.text for box in response.boxes] == ["Yes", ",", " sir"]
    assert [box.relative for box in response.boxes] == pytest.approx([1.5, 0.6, 0.9])
    assert [box.tokens for box in response.boxes] == [(0, 1), (1, 2), (2, 3)]
    assert (response.tokens, response.shown, response.characters_cut) == (3, 3, 0)


def test_byte_tokens_of_one_character_are_one_box_with_the_sum_of_weight_and_the_mean_shade() -> None:
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(pre_tokenizers.ByteLevel.alphabet())}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text = "a😀b"
    encoded = backend.encode(text)
    assert len(encoded.ids) == 6
    response = boxed("chosen", text, np.array(encoded.offsets), np.array([0.1, 0.1, 0.2, 0.1, 0.2, 0.3]))
    assert [(box.text, box.tokens) for box in response.boxes] == [("a", (0, 1)), ("😀", (1, 5)), ("b", (5, 6))]
    assert response.boxes[1].weight == pytest.approx(0.6)
    assert response.boxes[1].relative == pytest.approx(0.6 / 4 * 6)


def test_characters_without_a_token_get_a_box_without_one() -> None:
    response = boxed("chosen", "a  b  and more \n", np.array([[0, 1], [3, 4]]), np.array([0.5, 0.5]))
    assert [(box.text, box.covered) for box in response.boxes] == [("a", True), ("  ", False), ("b", True)]
    assert response.characters_cut == len("  and more")


def test_the_first_tokens_end_at_a_whole_box() -> None:
    response = boxed("chosen", "abé", np.array([[0, 1], [1, 2], [2, 3], [2, 3]]), np.full(4, 0.25))
    assert response.first(10) == response
    assert [box.text for box in response.first(3).boxes] == ["a", "b"]
    assert response.first(3).shown == 2


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), max_size=20),
    st.text(min_size=80, max_size=80),
)
def test_boxes_hold_each_character_once_and_all_the_weight(steps: list[tuple[int, int, bool]], text: str) -> None:
    offsets, end = [], 0
    for gap, length, shares in steps:
        begin = max(0, end - 1) if shares else end + gap
        offsets.append((begin, begin + length))
        end = max(end, begin + length)
    weights = np.full(len(offsets), 1 / max(len(offsets), 1))
    boxes = boxed("chosen", text, np.array(offsets, np.int64).reshape(-1, 2), weights).boxes
    last = max((stop for _, stop in offsets), default=0)
    assert "".join(box.text for box in boxes) == text[:last]
    assert sum(box.weight for box in boxes) == pytest.approx(float(bool(offsets)))
    assert [index for box in boxes for index in range(*box.tokens)] == list(range(len(offsets)))
    assert Box("x").covered is False

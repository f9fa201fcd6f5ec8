"""Judge weights to the training tokens of another tokenizer, through the characters that both cover."""

import numpy as np
from numpy.typing import NDArray

from pipeline.realign.carry import Carried

FloatArray = NDArray[np.float64]
Offsets = NDArray[np.integer]


def carry_by_characters(train_offsets: Offsets, judge_offsets: Offsets, judge_weights: FloatArray) -> Carried:
    """Carry ``judge_weights`` [n_J] from ``judge_offsets`` [n_J, 2] to ``train_offsets`` [T, 2].

    Offsets are half-open spans of characters of one and the same text. A judge token spreads its weight evenly over
    its characters; training tokens that cover a character share its weight equally. Byte tokens that hold a part of a
    character each span it whole, so they share it. Zero-width training tokens get 0 and are unmatched; the weight of
    a zero-width judge token, and of characters that no training token covers, is lost.
    """
    judge_token, judge_char = _cells(judge_offsets)
    train_token, train_char = _cells(train_offsets)
    length = int(max(judge_char.max(initial=-1), train_char.max(initial=-1))) + 1
    judge_width = judge_offsets[:, 1] - judge_offsets[:, 0]
    spread = judge_weights[judge_token] / judge_width[judge_token]
    char_weight = np.bincount(judge_char, weights=spread, minlength=length)
    judged = np.bincount(judge_char, minlength=length) > 0
    sharers = np.bincount(train_char, minlength=length)
    count = len(train_offsets)
    weights = np.bincount(train_token, weights=char_weight[train_char] / sharers[train_char], minlength=count)
    matched = np.bincount(train_token, weights=judged[train_char], minlength=count) > 0
    return Carried(weights.astype(np.float64), matched)


def _cells(offsets: Offsets) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every (token, character) of spans [n, 2], as two arrays."""
    start = offsets[:, 0].astype(np.int64)
    width = offsets[:, 1].astype(np.int64) - start
    tokens = np.repeat(np.arange(len(offsets)), width)
    first_cell = np.cumsum(width) - width
    characters = np.arange(len(tokens)) - first_cell[tokens] + start[tokens]
    return tokens, characters

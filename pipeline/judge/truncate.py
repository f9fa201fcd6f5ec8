"""Cutting a text to its first or last tokens, at whole characters (METHODS 2.2, point 2)."""

from dataclasses import dataclass

import numpy as np

from pipeline.judge.spans import Offsets, Span


@dataclass(frozen=True)
class Kept:
    """What is left of a text of n tokens: its characters, and how many of the n tokens lie within them."""

    characters: Span
    tokens: int
    cut: int
    """Tokens lost, n - tokens."""


def first_tokens(offsets: Offsets, length: int, limit: int) -> Kept:
    """Keep at most `limit` tokens of a text of `length` characters, to the end of their last whole character."""
    if len(offsets) <= limit:
        return Kept((0, length), len(offsets), 0)
    end = int(min(offsets[:limit, 1].max(initial=0), offsets[limit:, 0].min()))
    tokens = int(np.count_nonzero(offsets[:, 1] <= end))
    return Kept((0, end), tokens, len(offsets) - tokens)


def last_tokens(offsets: Offsets, length: int, limit: int) -> Kept:
    """Keep at most the last `limit` tokens, from the beginning of their first whole character."""
    if len(offsets) <= limit:
        return Kept((0, length), len(offsets), 0)
    at = len(offsets) - limit
    start = int(max(offsets[at:, 0].min(initial=length), offsets[:at, 1].max()))
    tokens = int(np.count_nonzero(offsets[:, 0] >= start))
    return Kept((start, length), tokens, len(offsets) - tokens)

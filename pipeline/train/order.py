"""The order in which an epoch sees its pairs: a pure function of seed, epoch and the shards' row counts.

The order of the shards is shuffled, then the rows within each window of a few shards, so that a reader holds one window
and not the set. The number of processes plays no part, and a position in the epoch is one number.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

WINDOW_SHARDS = 8
"""Shards whose rows are mixed with each other, and which are held in memory together."""


@dataclass(frozen=True)
class Row:
    """One pair by its place: the shard, and the row among the shard's usable pairs."""

    shard: int
    row: int


class Order:
    """Pairs of one pass over a split, position by position. `rows` in the methods: half-open ranges of positions."""

    def __init__(
        self, shard_rows: Sequence[int], windows: Sequence[tuple[int, ...]], shuffle_seed: tuple[int, ...] | None
    ) -> None:
        self.windows = tuple(windows)
        self._shard_rows = tuple(shard_rows)
        self._shuffle_seed = shuffle_seed
        sizes = (sum(shard_rows[shard] for shard in window) for window in windows)
        self._starts = (0, *accumulate(sizes))

    def __len__(self) -> int:
        return self._starts[-1]

    def window_at(self, position: int) -> int:
        """The window that holds a position. Raises IndexError beyond the end."""
        if not 0 <= position < len(self):
            raise IndexError(f"position {position} of {len(self)}")
        return bisect_right(self._starts, position) - 1

    def range_of(self, window: int) -> tuple[int, int]:
        """Positions that a window covers."""
        return self._starts[window], self._starts[window + 1]

    def rows_of(self, window: int) -> list[Row]:
        """The pairs of a window in their order."""
        rows = [Row(shard, row) for shard in self.windows[window] for row in range(self._shard_rows[shard])]
        if self._shuffle_seed is None:
            return rows
        return [rows[index] for index in _permutation(len(rows), (*self._shuffle_seed, window + 1))]


def shuffled_order(seed: int, epoch: int, shard_rows: Sequence[int], window_shards: int = WINDOW_SHARDS) -> Order:
    """The order of one training epoch. `shard_rows`: usable pairs of each shard."""
    key = (seed % 2**63, epoch)
    shards = [int(shard) for shard in _permutation(len(shard_rows), (*key, 0))]
    windows = [tuple(shards[first : first + window_shards]) for first in range(0, len(shards), window_shards)]
    return Order(shard_rows, windows, key)


def stored_order(shard_rows: Sequence[int]) -> Order:
    """The order of the shards as they lie on disk, for evaluation."""
    return Order(shard_rows, [(shard,) for shard in range(len(shard_rows))], None)


def _permutation(number: int, key: tuple[int, ...]) -> np.ndarray:
    # RandomState and SeedSequence are the two parts of numpy whose streams are promised never to change.
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(key))).permutation(number)

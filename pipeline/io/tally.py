"""Shards in the making, in this process or in several: one progress, and totals at the end."""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pipeline.io.progress import Progress

Item = tuple[str, int]
"""A shard: its split and number."""


class Listener(Protocol):
    """Who hears how far the shards are: the Tally of this process, or a worker's Seat, which tells its launcher's."""

    def begin(self, item: Item) -> None:
        """Work on a shard begins."""

    def part(self, item: Item, pairs: float, tokens: int) -> None:
        """So many more pairs and tokens of a shard are done; a pair of which half is done counts 0.5."""

    def made(self, item: Item, tokens: int, counts: Mapping[str, float]) -> None:
        """The shard is written; `tokens` and `counts` are those of all of it."""


@dataclass(frozen=True)
class Totals:
    """What one run of a stage has made, without the shards that it found finished."""

    pairs: int
    tokens: int
    counts: Mapping[str, float]
    """Sums of `Made.counts`."""
    seconds: float
    """From the beginning of the first shard to the end of the last, so without the time to load a model."""
    workers: int
    """Processes that worked at the same time."""


class Tally:
    """Pairs, tokens and counters of the shards of one run.

    Args:
        pairs: of every shard.
        done: pairs in shards that were finished before; they do not count as speed.
        workers: processes that make the shards.
    """

    def __init__(self, label: str, pairs: Mapping[Item, int], done: int = 0, workers: int = 1) -> None:
        self._label, self._pairs, self._before, self._workers = label, pairs, done, workers
        self._made = 0
        self._tokens = 0
        self._counts: dict[str, float] = defaultdict(float)
        self._open: dict[Item, tuple[float, int]] = {}
        self._progress: Progress | None = None
        self._began = self._ended = 0.0

    def begin(self, item: Item) -> None:
        """Work on a shard begins; the clock starts with the first, when its model is loaded."""
        if self._progress is None:
            self._progress = Progress(self._label, sum(self._pairs.values()), done=self._before)
            self._began = self._ended = time.monotonic()
        self._open[item] = (0.0, 0)

    def part(self, item: Item, pairs: float, tokens: int) -> None:
        """So many more pairs and tokens of a shard are done."""
        before, tokens_before = self._open[item]
        # Whole it is only when it is written.
        self._open[item] = (min(before + pairs, 0.99 * self._pairs[item]), tokens_before + tokens)
        self._show(_named(self._open))

    def made(self, item: Item, tokens: int, counts: Mapping[str, float]) -> None:
        """A shard is written. Its own tokens replace what its parts have told."""
        note = _named(self._open)
        del self._open[item]
        self._made += self._pairs[item]
        self._tokens += tokens
        for name, value in counts.items():
            self._counts[name] += value
        self._ended = time.monotonic()
        self._show(note)

    def drop(self, item: Item) -> None:
        """A shard will not be finished: its worker is gone, and its parts with it."""
        self._open.pop(item, None)

    def totals(self) -> Totals | None:
        """What was made; None where nothing was."""
        if not self._made:
            return None
        return Totals(self._made, self._tokens, dict(self._counts), self._ended - self._began, self._workers)

    def close(self) -> None:
        """End the line of the progress, whether all is done or not."""
        if self._progress is not None:
            self._progress.close()

    def _show(self, note: str) -> None:
        assert self._progress is not None
        pairs = sum(pairs for pairs, _ in self._open.values())
        tokens = sum(tokens for _, tokens in self._open.values())
        self._progress.update(self._before + self._made + pairs, self._tokens + tokens, note)


def _named(items: Mapping[Item, object]) -> str:
    """`train shards 3, 4; test shard 0`."""
    by_split: dict[str, list[str]] = defaultdict(list)
    for split, shard in items:
        by_split[split].append(str(shard))
    return "; ".join(
        f"{split} shard{'s' if len(shards) > 1 else ''} {', '.join(shards)}" for split, shards in by_split.items()
    )

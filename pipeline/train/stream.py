"""Pairs read from the shards as training needs them: at most one window of shards is in memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.errors import DataError, ShardError
from pipeline.io.artifact import Artifact, Shard
from pipeline.schemas.aligned import ALIGNED
from pipeline.schemas.reference import REFERENCE
from pipeline.schemas.tokens import TOKENS
from pipeline.train.order import Order, Row
from pipeline.train.pairs import JoinedShard, TrainedPair


@dataclass(frozen=True)
class PairArtifacts:
    """The three artifacts that training joins."""

    tokens: Artifact
    aligned: Artifact
    reference: Artifact

    @classmethod
    def below(cls, data: Path) -> "PairArtifacts":
        """The artifacts `tokens`, `aligned` and `reference` in a folder."""
        return cls(
            Artifact(data / "tokens", TOKENS),
            Artifact(data / "aligned", ALIGNED),
            Artifact(data / "reference", REFERENCE),
        )


class PairStream:
    """The usable pairs of one split, by position in an order."""

    def __init__(self, artifacts: PairArtifacts, split: str) -> None:
        self.split = split
        self._shards = _matching_shards(artifacts, split)
        # Footers alone: `aligned` holds exactly the usable pairs.
        self.shard_rows = [pq.read_metadata(aligned.path).num_rows for _, aligned, _ in self._shards]
        self._loaded: dict[int, JoinedShard] = {}

    def __len__(self) -> int:
        return sum(self.shard_rows)

    def block(self, order: Order, begin: int, end: int) -> list[TrainedPair]:
        """The pairs at positions `begin` to `end` of an order."""
        return list(self._walk(order, begin, end))

    def _walk(self, order: Order, begin: int, end: int) -> Iterator[TrainedPair]:
        position = begin
        while position < end:
            window = order.window_at(position)
            first, last = order.range_of(window)
            self._keep(order.windows[window])
            for row in order.rows_of(window)[position - first : min(end, last) - first]:
                yield self._read(row)
            position = min(end, last)

    def _keep(self, shards: Sequence[int]) -> None:
        self._loaded = {shard: joined for shard, joined in self._loaded.items() if shard in shards}

    def _read(self, place: Row) -> TrainedPair:
        joined = self._loaded.get(place.shard)
        if joined is None:
            joined = self._loaded[place.shard] = JoinedShard(*self._shards[place.shard])
        return joined.pair(place.row)


def open_split(artifacts: PairArtifacts, split: str) -> PairStream:
    """A split that must hold pairs. Raises DataError when it holds none."""
    stream = PairStream(artifacts, split)
    if not len(stream):
        raise DataError(f"{artifacts.aligned.path / split}: no usable pair; data/refused/ says why pairs were refused")
    return stream


def open_optional_split(artifacts: PairArtifacts, split: str) -> PairStream | None:
    """A split that may be empty, such as `validation` where `prepare.validation_share` is 0."""
    folder = artifacts.tokens.path / split
    if not any(folder.glob("*.parquet")):
        return None
    stream = PairStream(artifacts, split)
    return stream if len(stream) else None


def _matching_shards(artifacts: PairArtifacts, split: str) -> list[tuple[Shard, Shard, Shard]]:
    tokens = artifacts.tokens.shards(split)
    others = {"aligned": artifacts.aligned.shards(split), "reference": artifacts.reference.shards(split)}
    for name, shards in others.items():
        if [shard.rows for shard in shards] != [shard.rows for shard in tokens]:
            raise ShardError(
                f"{getattr(artifacts, name).path / split}: its shards cover other pairs than those of"
                f" {artifacts.tokens.path / split}; run `dvc repro`"
            )
    return list(zip(tokens, others["aligned"], others["reference"], strict=True))

"""Pairs read from the shards as training needs them: at most one window of shards is in memory."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.config.objective import Need, third_kind
from pipeline.errors import DataError, ShardError
from pipeline.io.artifact import Artifact, Shard
from pipeline.schemas.aligned import ALIGNED
from pipeline.schemas.reference import REFERENCE
from pipeline.schemas.third import THIRD
from pipeline.schemas.tokens import TOKENS
from pipeline.train.order import Order, Row
from pipeline.train.pairs import JoinedShard, TrainedPair

Shards = tuple[Shard, Shard, Shard | None, Shard | None]
"""Of the same pairs: tokens, aligned, reference, third."""


@dataclass(frozen=True)
class PairArtifacts:
    """The artifacts that training joins; None: one that the objective does not take."""

    tokens: Artifact
    aligned: Artifact
    reference: Artifact | None = None
    third: Artifact | None = None

    @classmethod
    def weighted(cls, data: Path) -> "PairArtifacts":
        """Tokens and weights alone, for who computes both models' log-probs."""
        return cls(Artifact(data / "tokens", TOKENS), Artifact(data / "aligned", ALIGNED))

    @classmethod
    def below(cls, data: Path) -> "PairArtifacts":
        """The artifacts in a folder, without those that were skipped because nothing needs them."""
        reference, third = Artifact(data / "reference", REFERENCE), Artifact(data / "third", THIRD)
        taken = (None if artifact.skipped else artifact for artifact in (reference, third))
        return cls(Artifact(data / "tokens", TOKENS), Artifact(data / "aligned", ALIGNED), *taken)


def check_fits(artifacts: PairArtifacts, needs: Collection[Need]) -> None:
    """What is cached must be what the objective needs (`pipeline.config.objective.needs_of`). Reads one footer.

    Shards that are missing altogether are left to who opens a split. Raises ShardError that names the folder.
    """
    data = artifacts.tokens.path.parent
    if "ref_logps" in needs and artifacts.reference is None:
        raise ShardError(
            f"{data / 'reference'}: was left empty, but train.objective needs the reference's log-probs; run `dvc"
            " repro`"
        )
    wanted = third_kind(needs)
    if artifacts.third is None:
        if wanted is not None:
            raise ShardError(
                f"{data / 'third'}: was left empty, but train.objective needs third responses of kind {wanted}; run"
                " `dvc repro`"
            )
        return
    facts = artifacts.third.known_facts
    if facts and (wanted is None or facts.get("kind") != wanted):
        takes = "none" if wanted is None else f"those of kind {wanted}"
        raise ShardError(
            f"{artifacts.third.path}: holds third responses of kind {facts.get('kind')}, but train.objective takes"
            f" {takes}; run `dvc repro`"
        )


class PairStream:
    """The usable pairs of one split, by position in an order."""

    def __init__(self, artifacts: PairArtifacts, split: str) -> None:
        self.split = split
        self._shards = _matching_shards(artifacts, split)
        self.shard_rows = [_usable(shards) for shards in self._shards]
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


def _usable(shards: Shards) -> int:
    """Pairs of a shard that can be trained on; from footers, where `aligned` alone decides."""
    _, aligned, _, third = shards
    if third is None:
        return pq.read_metadata(aligned.path).num_rows
    return len(
        set(aligned.table(["pair_id"])["pair_id"].to_pylist()) & set(third.table(["pair_id"])["pair_id"].to_pylist())
    )


def _matching_shards(artifacts: PairArtifacts, split: str) -> list[Shards]:
    tokens = artifacts.tokens.shards(split)
    columns: list[list[Shard] | list[None]] = []
    for other in (artifacts.aligned, artifacts.reference, artifacts.third):
        if other is None:
            columns.append([None] * len(tokens))
            continue
        shards = other.shards(split)
        if [shard.rows for shard in shards] != [shard.rows for shard in tokens]:
            raise ShardError(
                f"{other.path / split}: its shards cover other pairs than those of {artifacts.tokens.path / split}; run"
                " `dvc repro`"
            )
        columns.append(shards)
    return list(zip(tokens, *columns, strict=True))

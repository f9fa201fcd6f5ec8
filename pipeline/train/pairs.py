"""One shard of training pairs: tokens, aligned weights and reference log-probs, joined by `pair_id`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.errors import NonFiniteError, ShardError
from pipeline.io.artifact import Shard
from pipeline.io.lists import arrays_of
from pipeline.schemas.base import RESPONSES

TOKEN_COLUMNS = ["pair_id", "prompt_ids", "chosen_ids", "rejected_ids"]
ALIGNED_COLUMNS = ["pair_id", "chosen_weights", "chosen_length", "rejected_weights", "rejected_length"]
REFERENCE_COLUMNS = ["pair_id", "chosen_logps", "rejected_logps"]


@dataclass(frozen=True)
class TrainedResponse:
    """A response as it is trained on; the arrays hold one entry per token."""

    ids: np.ndarray
    """[T] integers"""
    weights: np.ndarray
    """[T] float32"""
    ref_logps: np.ndarray
    """[T] float32"""
    length: float
    """|y| of Eq. 5."""


@dataclass(frozen=True)
class TrainedPair:
    """One preference pair with everything that the loss takes from disk."""

    pair_id: str
    prompt_ids: np.ndarray
    chosen: TrainedResponse
    rejected: TrainedResponse

    @property
    def tokens(self) -> int:
        """Tokens of both sequences, the prompt counted twice."""
        return 2 * len(self.prompt_ids) + len(self.chosen.ids) + len(self.rejected.ids)


class JoinedShard:
    """The usable pairs of one shard, in the order of `tokens`; its arrays are views into the shard's columns."""

    def __init__(self, tokens: Shard, aligned: Shard, reference: Shard) -> None:
        self._shards = {"tokens": tokens, "aligned": aligned, "reference": reference}
        columns = {"tokens": TOKEN_COLUMNS, "aligned": ALIGNED_COLUMNS, "reference": REFERENCE_COLUMNS}
        tables = {name: shard.table(columns[name]) for name, shard in self._shards.items()}
        rows = {name: _rows_by_id(table, self._shards[name].path) for name, table in tables.items()}
        for pair_id in rows["aligned"]:
            for name in ("tokens", "reference"):
                if pair_id not in rows[name]:
                    raise ShardError(
                        f"{self._shards[name].path}: lacks pair {pair_id}, which {aligned.path} has; the artifacts are"
                        " of different runs: run `dvc repro`"
                    )
        # Pairs that realign refused are missing from `aligned` alone; training goes on without them.
        self._pair_ids = [pair_id for pair_id in rows["tokens"] if pair_id in rows["aligned"]]
        self._rows = rows
        self._lists = {
            column: arrays_of(tables[name][column])
            for name in tables
            for column in columns[name]
            if column.endswith(("_ids", "_weights", "_logps"))
        }
        self._lengths = {name: tables["aligned"][f"{name}_length"].to_pylist() for name in RESPONSES}

    def __len__(self) -> int:
        return len(self._pair_ids)

    def pair(self, row: int) -> TrainedPair:
        """The pair at a row. Raises ShardError where lists of one pair differ in length, NonFiniteError."""
        pair_id = self._pair_ids[row]
        return TrainedPair(
            pair_id,
            self._lists["prompt_ids"][self._rows["tokens"][pair_id]],
            self._response(pair_id, "chosen"),
            self._response(pair_id, "rejected"),
        )

    def _response(self, pair_id: str, name: str) -> TrainedResponse:
        ids = self._lists[f"{name}_ids"][self._rows["tokens"][pair_id]]
        aligned = self._rows["aligned"][pair_id]
        weights = self._lists[f"{name}_weights"][aligned]
        length = self._lengths[name][aligned]
        ref_logps = self._lists[f"{name}_logps"][self._rows["reference"][pair_id]]
        for artifact, column, values in (("aligned", "weights", weights), ("reference", "logps", ref_logps)):
            where = f"{self._shards[artifact].path}: {name}_{column} of pair {pair_id}"
            if len(values) != len(ids):
                raise ShardError(
                    f"{where}: {len(values)} entries for {len(ids)} tokens; the artifacts are of different runs: run"
                    " `dvc repro`"
                )
            if not np.isfinite(values).all():
                raise NonFiniteError(f"{where}: holds a NaN or infinite value; remove the folder and run `dvc repro`")
        if not np.isfinite(length):
            raise NonFiniteError(f"{self._shards['aligned'].path}: {name}_length of pair {pair_id} is not finite")
        return TrainedResponse(ids, weights, ref_logps, length)


def _rows_by_id(table: pa.Table, path: Path) -> dict[str, int]:
    ids: list[str] = table["pair_id"].to_pylist()
    rows = {pair_id: row for row, pair_id in enumerate(ids)}
    if len(rows) != len(ids):
        raise ShardError(f"{path}: holds a pair twice; remove it and run `dvc repro`")
    return rows

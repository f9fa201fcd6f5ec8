"""One shard of training pairs: tokens, weights, reference log-probs and third responses, joined by `pair_id`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.errors import NonFiniteError, ShardError
from pipeline.io.artifact import Shard
from pipeline.io.lists import arrays_of
from pipeline.schemas.base import RESPONSES

TOKEN_COLUMNS = ["pair_id", "prompt_ids", "chosen_ids", "rejected_ids"]
ALIGNED_COLUMNS = ["pair_id", "flipped", "chosen_weights", "chosen_length", "rejected_weights", "rejected_length"]
REFERENCE_COLUMNS = ["pair_id", "chosen_logps", "rejected_logps"]
THIRD_COLUMNS = ["pair_id", "third_ids", "third_logps"]


@dataclass(frozen=True)
class TrainedResponse:
    """A response as it is trained on; the arrays hold one entry per token."""

    ids: np.ndarray
    """[T] integers"""
    weights: np.ndarray
    """[T] float32"""
    ref_logps: np.ndarray | None
    """[T] float32; None where the objective takes no reference."""
    length: float
    """|y| of Eq. 5; 1 for weights that are not of sum 1."""


@dataclass(frozen=True)
class TrainedPair:
    """One preference pair with everything that the loss takes from disk."""

    pair_id: str
    prompt_ids: np.ndarray
    chosen: TrainedResponse
    """The preferred response; where labels are flipped, what the data call rejected."""
    rejected: TrainedResponse
    third: TrainedResponse | None = None
    """For objectives that take a third response. Its weights are 1."""

    @property
    def responses(self) -> tuple[TrainedResponse, ...]:
        """Chosen, rejected and, where there is one, the third."""
        both = (self.chosen, self.rejected)
        return both if self.third is None else (*both, self.third)

    @property
    def tokens(self) -> int:
        """Tokens of all sequences, the prompt counted in each."""
        return sum(len(self.prompt_ids) + len(response.ids) for response in self.responses)


@dataclass(frozen=True)
class PromptedResponses:
    """Responses after one prompt that are no preference pair, such as KTO's mismatched one."""

    pair_id: str
    prompt_ids: np.ndarray
    responses: tuple[TrainedResponse, ...]


Trained = TrainedPair | PromptedResponses


class JoinedShard:
    """The usable pairs of one shard, in the order of `tokens`; its arrays are views into the shard's columns."""

    def __init__(
        self, tokens: Shard, aligned: Shard, reference: Shard | None = None, third: Shard | None = None
    ) -> None:
        given = {"tokens": tokens, "aligned": aligned, "reference": reference, "third": third}
        self._shards = {name: shard for name, shard in given.items() if shard is not None}
        columns = {
            "tokens": TOKEN_COLUMNS,
            "aligned": ALIGNED_COLUMNS,
            "reference": REFERENCE_COLUMNS,
            "third": THIRD_COLUMNS,
        }
        tables = {name: shard.table(columns[name]) for name, shard in self._shards.items()}
        rows = {name: _rows_by_id(table, self._shards[name].path) for name, table in tables.items()}
        for pair_id in rows["aligned"]:
            for name in ("tokens", "reference"):
                if name in rows and pair_id not in rows[name]:
                    raise ShardError(
                        f"{self._shards[name].path}: lacks pair {pair_id}, which {aligned.path} has; the artifacts are"
                        " of different runs: run `dvc repro`"
                    )
        # Pairs that `realign` refused are missing from `aligned`, those without a third response from `third`; training
        # goes on without them.
        kept = [rows[name] for name in ("aligned", "third") if name in rows]
        self._pair_ids = [pair_id for pair_id in rows["tokens"] if all(pair_id in of for of in kept)]
        self._rows = rows
        self._lists = {
            column: arrays_of(tables[name][column])
            for name in tables
            for column in columns[name]
            if column.endswith(("_ids", "_weights", "_logps")) and not tables[name][column].null_count
        }
        self._flipped = tables["aligned"]["flipped"].to_pylist()
        self._lengths = {name: tables["aligned"][f"{name}_length"].to_pylist() for name in RESPONSES}

    def __len__(self) -> int:
        return len(self._pair_ids)

    def pair(self, row: int) -> TrainedPair:
        """The pair at a row. Raises ShardError where lists of one pair differ in length, NonFiniteError."""
        pair_id = self._pair_ids[row]
        names = RESPONSES[::-1] if self._flipped[self._rows["aligned"][pair_id]] else RESPONSES
        return TrainedPair(
            pair_id,
            self._lists["prompt_ids"][self._rows["tokens"][pair_id]],
            self._response(pair_id, names[0]),
            self._response(pair_id, names[1]),
            self._third(pair_id) if "third" in self._rows else None,
        )

    def _response(self, pair_id: str, name: str) -> TrainedResponse:
        ids = self._lists[f"{name}_ids"][self._rows["tokens"][pair_id]]
        aligned = self._rows["aligned"][pair_id]
        weights = self._lists[f"{name}_weights"][aligned]
        length = self._lengths[name][aligned]
        self._check("aligned", f"{name}_weights", pair_id, weights, len(ids))
        ref_logps = None
        if "reference" in self._rows:
            ref_logps = self._lists[f"{name}_logps"][self._rows["reference"][pair_id]]
            self._check("reference", f"{name}_logps", pair_id, ref_logps, len(ids))
        if not np.isfinite(length):
            raise NonFiniteError(f"{self._shards['aligned'].path}: {name}_length of pair {pair_id} is not finite")
        return TrainedResponse(ids, weights, ref_logps, length)

    def _third(self, pair_id: str) -> TrainedResponse:
        row = self._rows["third"][pair_id]
        ids = self._lists["third_ids"][row]
        logps = self._lists["third_logps"][row] if "third_logps" in self._lists else None
        if logps is not None:
            self._check("third", "third_logps", pair_id, logps, len(ids))
        return TrainedResponse(ids, np.ones(len(ids), np.float32), logps, 1.0)

    def _check(self, artifact: str, column: str, pair_id: str, values: np.ndarray, tokens: int) -> None:
        where = f"{self._shards[artifact].path}: {column} of pair {pair_id}"
        if len(values) != tokens:
            raise ShardError(
                f"{where}: {len(values)} entries for {tokens} tokens; the artifacts are of different runs: run `dvc"
                " repro`"
            )
        if not np.isfinite(values).all():
            raise NonFiniteError(f"{where}: holds a NaN or infinite value; remove the folder and run `dvc repro`")


def _rows_by_id(table: pa.Table, path: Path) -> dict[str, int]:
    ids: list[str] = table["pair_id"].to_pylist()
    rows = {pair_id: row for row, pair_id in enumerate(ids)}
    if len(rows) != len(ids):
        raise ShardError(f"{path}: holds a pair twice; remove it and run `dvc repro`")
    return rows

"""Preference pairs: their identity, and `data/pairs/{split}.parquet` written and read."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import ShardError
from pipeline.io.parquet import read_facts, read_table, write_table
from pipeline.schemas.pairs import PAIRS

_BATCH = 1024


def pair_id(context: Sequence[Mapping[str, str]], chosen: str, rejected: str) -> str:
    """sha256 (hex) of context, chosen and rejected, independent of scores and source."""
    return _sha256([_turns(context), chosen, rejected])


def prompt_key(context: Sequence[Mapping[str, str]]) -> str:
    """sha256 (hex) of every turn before the response, roles included: what makes two prompts the same prompt."""
    return _sha256(_turns(context))


@dataclass(frozen=True)
class Pair:
    """One usable pair; the texts are those of the source, character by character."""

    prompt: list[dict[str, str]]
    chosen: str
    rejected: str
    score_chosen: float | None
    score_rejected: float | None
    gold: str | None
    source: str

    @cached_property
    def pair_id(self) -> str:
        return pair_id(self.prompt, self.chosen, self.rejected)

    @cached_property
    def prompt_key(self) -> str:
        return prompt_key(self.prompt)

    def record(self) -> dict[str, Any]:
        """A row of the schema PAIRS."""
        return {name: getattr(self, name) for name in PAIRS.names}


def write_pairs(path: Path, pairs: Sequence[Pair], facts: Mapping[str, Any]) -> None:
    """Write a split whole or not at all. `facts` must hold `pairs_per_shard`, by which later stages cut it."""
    # Batches of bounded size: one Arrow array of strings holds 2 GiB at most.
    batches = [
        pa.RecordBatch.from_pylist([pair.record() for pair in pairs[start : start + _BATCH]], schema=PAIRS)
        for start in range(0, len(pairs), _BATCH)
    ]
    write_table(path, pa.Table.from_batches(batches, schema=PAIRS), dict(facts))


@dataclass(frozen=True)
class Pairs:
    """A split of pairs as `prepare` wrote it."""

    path: Path
    table: pa.Table
    """Schema PAIRS, one row per pair."""
    facts: Mapping[str, Any]

    @property
    def pairs_per_shard(self) -> int:
        """Pairs in one shard of every artifact that is made from this split."""
        return int(self.facts["pairs_per_shard"])

    @property
    def shards(self) -> list[tuple[int, int]]:
        """Half-open ranges of rows, one per shard; a split without pairs has one empty shard."""
        number, size = self.table.num_rows, self.pairs_per_shard
        return [(start, min(start + size, number)) for start in range(0, number, size)] or [(0, 0)]

    def records(self, begin: int, end: int) -> list[dict[str, Any]]:
        """Rows [begin, end) as dictionaries of plain Python values."""
        rows: list[dict[str, Any]] = self.table.slice(begin, end - begin).to_pylist()
        return rows


def open_pairs(path: Path) -> Pairs:
    """Read a split. Raises ShardError, naming the file, when it is missing, torn or not written by `prepare`."""
    facts = read_facts(path)
    if facts.get("artifact") != "pairs":
        raise ShardError(f"{path}: holds {facts.get('artifact')!r}, not pairs; run `dvc repro prepare`")
    return Pairs(path, read_table(path, PAIRS), facts)


def _turns(context: Sequence[Mapping[str, str]]) -> list[list[str]]:
    return [[turn["role"], turn["content"]] for turn in context]


def _sha256(value: Any) -> str:
    # ASCII escapes and no spaces: one form per value, whatever writes it.
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()

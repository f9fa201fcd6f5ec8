"""Reading a sharded artifact: every shard present, of one run, in order."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import ShardError
from pipeline.io.digest import tree_digest
from pipeline.io.parquet import read_facts, read_table

_PART = re.compile(r"part-(\d{5})\.parquet")


def part_name(shard: int) -> str:
    """File name of a shard."""
    return f"part-{shard:05d}.parquet"


@dataclass(frozen=True)
class Shard:
    """One file of an artifact. `rows`: half-open range of positions in `pairs` that it covers."""

    path: Path
    index: int
    rows: tuple[int, int]
    schema: pa.Schema

    def table(self, columns: list[str] | None = None) -> pa.Table:
        """All rows, or some columns of them."""
        return read_table(self.path, self.schema, columns)

    def records(self) -> Iterator[dict[str, Any]]:
        """Rows as dictionaries of plain Python values."""
        for batch in self.table().to_batches():
            yield from batch.to_pylist()


class Artifact:
    """A folder `path/{split}/part-*.parquet`, checked on opening by names and footers alone."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.schema = schema

    def shards(self, split: str) -> list[Shard]:
        """The shards of a split in order. Raises ShardError when one is missing or belongs to another run."""
        folder = self.path / split
        files = sorted(folder.glob("*.parquet")) if folder.is_dir() else []
        if not files:
            raise ShardError(f"{folder}: no shards; run `dvc repro` to make them")
        shards: list[Shard] = []
        first: dict[str, Any] = {}
        for index, file in enumerate(files):
            facts = read_facts(file)
            first = first or facts
            if file.name != part_name(index):
                raise ShardError(f"{folder}: {part_name(index)} is missing ({file.name} is there); run `dvc repro`")
            for name in ("key", "artifact", "split", "shards"):
                if facts.get(name) != first.get(name):
                    raise ShardError(
                        f"{file}: made by another run than {files[0].name} ({name} differs); remove {folder} and run"
                        " `dvc repro`"
                    )
            begin = shards[-1].rows[1] if shards else 0
            if facts["rows"][0] != begin:
                raise ShardError(
                    f"{file}: begins at pair {facts['rows'][0]}, not {begin}; remove {folder}, run `dvc repro`"
                )
            shards.append(Shard(file, index, (facts["rows"][0], facts["rows"][1]), self.schema))
        if len(shards) != first["shards"]:
            raise ShardError(f"{folder}: {len(shards)} of {first['shards']} shards are there; run `dvc repro`")
        return shards

    def facts(self, split: str = "train") -> dict[str, Any]:
        """What the footer of a split's first shard says about the run that made it."""
        return read_facts(self.path / split / part_name(0))

    @property
    def known_facts(self) -> dict[str, Any]:
        """What the footer of the first shard there is, of any split, says about its run; empty where there is none."""
        first = min(self.path.glob("*/part-*.parquet"), default=None)
        return {} if first is None else read_facts(first)

    @property
    def skipped(self) -> str | None:
        """Why the artifact holds no row by intent; None where it holds what it should, or nothing was made yet."""
        why: str | None = self.known_facts.get("skipped")
        return why

    @cached_property
    def digest(self) -> str:
        """sha256 of all files below the folder."""
        return tree_digest([self.path])

"""Rows of a source as plain Python values, from Arrow where it is columnar."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.data.rows import COLUMNS, REQUIRED
from pipeline.errors import DataError


@dataclass(frozen=True)
class SourceRow:
    """One row, or why it could not even be read."""

    number: int
    """0-based: the line of a JSONL file, the position in any other source."""
    columns: dict[str, Any] | None
    reason: str = ""
    """Of `pipeline.data.checks.REASONS`, where `columns` is None."""
    detail: str = ""


def wanted_columns(found: Iterable[str], where: str) -> list[str]:
    """The columns to read, of those a source has. Raises DataError when it has no pairs at all."""
    names = list(found)
    if missing := [name for name in REQUIRED if name not in names]:
        shown = ", ".join(names[:20]) or "none"
        raise DataError(
            f"{where}: no column {' and '.join(missing)}; found: {shown}. Pairs need `chosen` and `rejected`, as lists"
            " of role/content messages or as texts beside `prompt`; rename the columns or name another file or split"
        )
    return [name for name in COLUMNS if name in names]


def rows_of_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[SourceRow]:
    """Rows of Arrow batches, numbered from 0. Text that is not UTF-8 makes one row unreadable, not its batch."""
    number = 0
    for batch in batches:
        try:
            rows: list[dict[str, Any] | None] = batch.to_pylist()
        except UnicodeDecodeError:
            rows = [_decoded(batch.slice(index, 1)) for index in range(batch.num_rows)]
        for row in rows:
            yield SourceRow(number, row) if row is not None else SourceRow(number, None, "bad_text", "not UTF-8")
            number += 1


def _decoded(row: pa.RecordBatch) -> dict[str, Any] | None:
    try:
        values: dict[str, Any] = row.to_pylist()[0]
    except UnicodeDecodeError:
        return None
    return values

"""Pairs that a stage could not use."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from pipeline.schemas.refused import REFUSED


@dataclass(frozen=True)
class Refusal:
    """Why one pair went no further. `detail` never holds text of the pair."""

    split: str
    row: int
    pair_id: str
    reason: str
    detail: str = ""


def refusal_table(refusals: Sequence[Refusal]) -> pa.Table:
    """Refusals in the schema of `data/refused/`."""
    return pa.Table.from_pylist([asdict(refusal) for refusal in refusals], schema=REFUSED)


def positions_left(rows: tuple[int, int], split: str, refused: Iterable[Mapping[str, Any]]) -> list[int]:
    """Positions in `pairs` of a shard's pairs without those that an earlier stage refused.

    Args:
        rows: half-open range of positions that the shard covers.
        refused: rows of that stage's refusals.
    """
    gone = {refusal["row"] for refusal in refused if refusal["split"] == split}
    return [row for row in range(*rows) if row not in gone]


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """Refused pairs by reason, in alphabetical order."""
    return dict(sorted(Counter(reasons).items()))

"""Pairs that a stage could not use."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

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


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """Refused pairs by reason, in alphabetical order."""
    return dict(sorted(Counter(reasons).items()))

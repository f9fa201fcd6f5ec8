"""From source rows to the pairs of train, validation and test: every row ends in a split or among the refused."""

import hashlib
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import islice

from pipeline.data.arrow_rows import SourceRow, wanted_columns
from pipeline.data.checks import usable_pair
from pipeline.data.pairs import Pair
from pipeline.data.rows import RowProblem
from pipeline.data.sources import Source, SourceSplit
from pipeline.data.splits import in_validation
from pipeline.errors import DataError
from pipeline.io.digest import value_digest
from pipeline.io.refusal import Refusal, count_reasons


@dataclass
class SourceRows:
    """What the rows of one source split came to."""

    rows: int = 0
    pairs: list[Pair] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    scores_dropped: int = 0
    """Scores that are no finite number; their pairs are kept."""
    prompts_in_test: set[str] = field(default_factory=set)
    """Keys of the prompts that were removed because test has them."""


@dataclass(frozen=True)
class Prepared:
    """Everything that was read."""

    sources: Mapping[SourceSplit, SourceRows]
    pairs: Mapping[str, list[Pair]]
    """By split: train, validation, test; in the order of the source."""

    @property
    def refused(self) -> list[Refusal]:
        """Of train, then of test, in the order of rows."""
        return [refusal for source in self.sources.values() for refusal in source.refused]

    @property
    def digest(self) -> str:
        """sha256 (hex) of the pairs of every split in order: the same pairs have it however they were found."""
        total = hashlib.sha256()
        for split, pairs in self.pairs.items():
            for pair in pairs:
                total.update(f"{split} {value_digest(pair.record())}\n".encode())
        return total.hexdigest()


def prepare(sources: Mapping[SourceSplit, Source], validation_share: float, limit: int | None = None) -> Prepared:
    """Read, check and split all sources.

    validation_share: of train prompts, chosen by hash. limit: read only so many first rows of each source split.
    Raises DataError when a source is not what its name says, or a split that is named has no usable pair.
    """
    # Test first: its prompts are taken out of train.
    test = read_source(sources["test"], limit) if "test" in sources else SourceRows()
    train = read_source(sources["train"], limit, in_test={pair.prompt_key for pair in test.pairs})
    pairs: dict[str, list[Pair]] = {"train": [], "validation": [], "test": test.pairs}
    for pair in train.pairs:
        pairs["validation" if in_validation(pair.prompt_key, validation_share) else "train"].append(pair)
    if not pairs["train"]:
        raise DataError(
            f"prepare.validation_share: {validation_share} holds out all {len(train.pairs)} usable pairs of"
            f" {sources['train'].label} for validation and leaves none to train on; lower it or use more rows"
        )
    return Prepared({"train": train, "test": test}, pairs)


def read_source(source: Source, limit: int | None = None, in_test: AbstractSet[str] = frozenset()) -> SourceRows:
    """Check every row of a source split; `in_test`: keys of the prompts that it must not have.

    Raises DataError when the source cannot be read or no pair is usable.
    """
    found = SourceRows()
    columns: dict[str, None] = {}
    first_row: dict[str, int] = {}
    for row in islice(source.rows(), limit):
        found.rows += 1
        columns.update(dict.fromkeys(row.columns or ()))
        pair = None
        try:
            pair = _pair(row, source, found)
            _check_against_others(pair, first_row, in_test, found)
        except RowProblem as problem:
            identity = pair.pair_id if pair else ""
            found.refused.append(Refusal(source.split, row.number, identity, problem.reason, problem.detail))
            continue
        first_row[pair.pair_id] = row.number
        found.pairs.append(pair)
    if columns:
        wanted_columns(columns, f"{source.params_path}: {source.label}")
    if not found.pairs:
        raise DataError(_no_pair(source, found))
    return found


def _pair(row: SourceRow, source: Source, found: SourceRows) -> Pair:
    if row.columns is None:
        raise RowProblem(row.reason, row.detail)
    pair, dropped = usable_pair(row.columns, f"{source.label}#{row.number}")
    found.scores_dropped += dropped
    return pair


def _check_against_others(
    pair: Pair, first_row: Mapping[str, int], in_test: AbstractSet[str], found: SourceRows
) -> None:
    if pair.pair_id in first_row:
        raise RowProblem("duplicate", f"of row {first_row[pair.pair_id]}")
    if pair.prompt_key in in_test:
        found.prompts_in_test.add(pair.prompt_key)
        raise RowProblem("prompt_in_test", f"{len(pair.prompt)} turns before the response")


def _no_pair(source: Source, found: SourceRows) -> str:
    where = f"{source.params_path}: {source.label} has no usable pair"
    if not found.rows:
        return f"{where}: it has no row; name another file or split"
    reasons = ", ".join(
        f"{number} {reason}" for reason, number in count_reasons(refusal.reason for refusal in found.refused).items()
    )
    first = found.refused[0]
    return (
        f"{where}: of {found.rows} rows, {reasons}. The first, row {first.row}: {first.reason} ({first.detail});"
        " correct the data, or name another file or split"
    )

"""Real rows that are hard: each ends as the committed table says, and nothing else is lost.

`hard_cases_expected.csv` has one line per row of `hard_cases.jsonl`: `outcome` is `trained` or `refused:<reason>`, and
`stage` is the stage that refuses. Rows 0 to 2 have an empty answer. Row 3's is one zero width space (U+200B), which
`str.strip` leaves in place; no reader could see it, so it is as empty as a space (`pipeline.data.text`).
Row 4's answers are equal.
"""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.prepare import PrepareParams
from pipeline.data.metrics import prepare_metrics
from pipeline.data.prepare import prepare
from pipeline.data.sources import open_sources

TABLE = Path(__file__).parent / "hard_cases_expected.csv"


def expected() -> list[dict[str, str]]:
    with TABLE.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def source_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def test_every_hard_case_ends_as_the_table_says(shared_data: Path) -> None:
    params = PrepareParams(folder=str(shared_data), train="hard_cases.jsonl", test=None)
    prepared = prepare(open_sources(params, Path("/")), params.validation_share)
    rows, table = source_rows(shared_data / "hard_cases.jsonl"), expected()
    assert [(int(line["row"]), line["category"]) for line in table] == [
        (number, row["category"]) for number, row in enumerate(rows)
    ]
    refused = {refusal.row: f"refused:{refusal.reason}" for refusal in prepared.refused}
    assert refused == {int(line["row"]): line["outcome"] for line in table if line["stage"] == "prepare"}
    usable = {int(pair.source.rsplit("#", 1)[1]): pair for pairs in prepared.pairs.values() for pair in pairs}
    assert sorted([*usable, *refused]) == list(range(len(rows)))
    for number, pair in usable.items():
        assert pair.prompt == rows[number]["chosen"][:-1]
        assert pair.chosen == rows[number]["chosen"][-1]["content"]
        assert pair.rejected == rows[number]["rejected"][-1]["content"]


def test_the_table_is_well_formed() -> None:
    for line in expected():
        assert line["outcome"] == "trained" or line["outcome"].startswith("refused:")
        assert (line["outcome"] == "trained") == (line["stage"] == "")


@pytest.mark.parametrize("test", ["test.jsonl", None])
def test_all_real_pairs(shared_data: Path, test: str | None) -> None:
    params = PrepareParams(folder=str(shared_data), train="train.jsonl.gz", test=test)
    prepared = prepare(open_sources(params, Path("/")), params.validation_share)
    figures = prepare_metrics(prepared)
    assert figures["rows"] == {"train": 2000, "test": 200 if test else 0}
    assert sum(figures["rows"].values()) == sum(figures["pairs"].values()) + figures["refused_total"]
    assert figures["refused_total"] == 0
    assert 140 < figures["pairs"]["validation"] < 260
    assert figures["train"]["multi_turn_share"] > 0.15
    identities = [pair.pair_id for pairs in prepared.pairs.values() for pair in pairs]
    assert len(set(identities)) == len(identities)

"""Every hard case ends either trained on, or refused with the reason that the committed table expects."""

import csv
from pathlib import Path

import polars as pl
import pytest

from tests.e2e.conftest import Project

pytestmark = pytest.mark.e2e

BEFORE_TRAINING = (
    "model", "prepare", "needs", "render", "extract", "postprocess", "tokenize", "realign", "reference",
)  # fmt: skip


def test_hard_cases_end_where_the_table_says(
    fresh_project: Project, tmp_path: Path, shared_data: Path, root: Path
) -> None:
    project = fresh_project.copy(tmp_path / "repo")
    project.set({"prepare.folder": str(shared_data), "prepare.train": "hard_cases.jsonl", "prepare.test": None})
    project.set({"prepare.limit": None, "prepare.pairs_per_shard": 16})
    for stage in BEFORE_TRAINING:
        project.stage(stage)
    data = project.root / "data"
    pairs = pl.concat([pl.read_parquet(data / "pairs" / f"{split}.parquet") for split in ("train", "validation")])
    rows = dict(zip(pairs["pair_id"], (int(source.rsplit("#", 1)[1]) for source in pairs["source"]), strict=True))
    found = {}
    for stage in ("prepare", "render", "tokenize", "realign"):
        for refusal in pl.read_parquet(data / "refused" / f"{stage}.parquet").iter_rows(named=True):
            row = refusal["row"] if stage == "prepare" else rows[refusal["pair_id"]]
            found[row] = f"refused:{refusal['reason']}"
    for name in ("aligned", "reference"):
        for split in ("train", "validation"):
            for pair_id in pl.scan_parquet(data / name / split).select("pair_id").collect()["pair_id"]:
                assert not found.get(rows[pair_id], "").startswith("refused") or name == "reference"
                found.setdefault(rows[pair_id], "trained")
    with (root / "tests" / "data" / "hard_cases_expected.csv").open(encoding="utf-8") as stream:
        expected = {int(line["row"]): line["outcome"] for line in csv.DictReader(stream)}
    assert found == expected


def test_no_text_of_a_pair_is_in_logs_or_refusals(run_project: Project) -> None:
    pairs = pl.read_parquet(run_project.root / "data" / "pairs" / "train.parquet")
    texts = [text for name in ("chosen", "rejected") for text in pairs[name] if len(text) > 20]
    written = b"".join(run_project.files("logs", "data/refused").values()).decode("utf-8", "replace")
    assert not [text for text in texts if text in written]

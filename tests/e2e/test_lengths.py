"""Pairs that are refused by their length: long prompts and short responses, as the code of SePO skips them."""

from pathlib import Path

import polars as pl
import pytest

from tests.e2e.conftest import Project
from tests.e2e.test_matrix import run

pytestmark = pytest.mark.e2e
SIDES = ("chosen", "rejected")


def test_no_pair_left_stops_before_the_models(
    fresh_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = fresh_project.copy(tmp_path / "repo")
    project.set({"tokenize.min_response_tokens": 2047})
    with pytest.raises(SystemExit, match=r"no train pair is left; data/refused/tokenize\.parquet says why"):
        run(project, monkeypatch, "model", "prepare", "tokenize")


def tokens(project: Project) -> pl.DataFrame:
    splits = ("train", "validation", "test")
    return pl.concat([pl.scan_parquet(project.root / "data" / "tokens" / split).collect() for split in splits])


def test_by_length(fresh_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = fresh_project.copy(tmp_path / "repo")
    run(project, monkeypatch, "model", "prepare", "tokenize")
    all_pairs = tokens(project)
    refused = project.root / "data" / "refused" / "tokenize.parquet"
    assert pl.read_parquet(refused).is_empty()
    shortest = pl.min_horizontal(pl.col(f"{side}_ids").list.len() - pl.col(f"{side}_eos").cast(int) for side in SIDES)
    lengths = all_pairs.select("pair_id", prompt=pl.col("prompt_ids").list.len(), response=shortest)
    most, least = int(lengths["prompt"].median()), int(lengths["response"].median())
    project.set(
        {
            "tokenize.max_prompt_tokens": most,
            "tokenize.long_prompts": "refuse",
            "tokenize.min_response_tokens": least,
        }
    )
    run(project, monkeypatch, "tokenize")
    expected = {
        row["pair_id"]: "long_prompt" if row["prompt"] > most else "short_response"
        for row in lengths.filter((pl.col("prompt") > most) | (pl.col("response") < least)).iter_rows(named=True)
    }
    assert set(expected.values()) == {"long_prompt", "short_response"}
    found = pl.read_parquet(refused)
    assert dict(found.select("pair_id", "reason").iter_rows()) == expected
    kept = all_pairs.filter(~pl.col("pair_id").is_in(list(expected)))
    assert len(kept) > 0
    assert tokens(project).equals(kept)

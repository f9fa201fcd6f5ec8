"""The choice of heads costs no extraction; without verdicts the stages that follow work all the same."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.e2e.conftest import STAGES, Project
from tests.e2e.test_repro import ran

pytestmark = pytest.mark.e2e

AFTER_EXTRACT = ["postprocess", "realign", "train", "evaluate", "report"]


@pytest.fixture(scope="module")
def each_head(run_project: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """The run with the mean over heads, run again with a row per head and without verdicts; DVC's output."""
    project = run_project.copy(tmp_path_factory.mktemp("each") / "repo")
    project.set({"extract.heads": "each", "extract.verdicts": False})
    return project, project.run("dvc", "repro")


def weights(project: Project) -> pl.DataFrame:
    return pl.scan_parquet(project.root / "data" / "weights" / "train").collect()


def test_the_mean_of_all_heads_is_that_of_the_mean_row(run_project: Project, each_head: tuple[Project, str]) -> None:
    project, output = each_head
    assert [stage for stage in STAGES if stage in ran(output)] == ["needs", "extract", *AFTER_EXTRACT]
    attention = pl.scan_parquet(project.root / "data" / "attention" / "train").collect()
    assert attention["head"].unique().sort().to_list() == [0, 1, 2, 3]
    mean, every = weights(run_project), weights(project)
    assert every.drop("weights").equals(mean.drop("weights"))
    for one, other in zip(mean["weights"], every["weights"], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_without_verdicts_everything_runs_and_the_page_says_so(each_head: tuple[Project, str]) -> None:
    project, _ = each_head
    for split in ("train", "validation", "test"):
        verdicts = pl.scan_parquet(project.root / "data" / "verdicts" / split).collect()
        assert len(verdicts) == 0
        assert "prob_a" in verdicts.columns
    metrics = json.loads((project.root / "reports" / "metrics" / "extract.json").read_text())
    assert metrics == {"train": {}, "validation": {}, "test": {}}
    assert "No verdict was read" in (project.root / "reports" / "index.md").read_text()


def test_a_choice_of_heads_runs_postprocess_and_not_extract(each_head: tuple[Project, str], tmp_path: Path) -> None:
    project = each_head[0].copy(tmp_path / "repo")
    project.set({"postprocess.heads": [3, 1]})
    assert ran(project.run("dvc", "repro")) == ["needs", *AFTER_EXTRACT]
    metrics = json.loads((project.root / "reports" / "metrics" / "postprocess.json").read_text())
    assert (metrics["source"], metrics["layer"], metrics["heads"]) == ("attention", 1, [1, 3])
    attention = pl.scan_parquet(project.root / "data" / "attention" / "train").collect()
    chosen = attention.filter(pl.col("layer") == 1, pl.col("head").is_in([1, 3]))
    names = ["pair_id", "response"]
    for row in weights(project).iter_rows(named=True):
        of = chosen.filter(*(pl.col(name) == row[name] for name in names))
        scores = np.array([of["round_1"].to_list(), of["round_2"].to_list()], dtype=np.float64)
        assert scores.shape == (2, 2, len(row["weights"]))
        # Behind the sink token, weights are in proportion to the raw scores.
        expected, got = scores.sum(axis=(0, 1))[1:], np.array(row["weights"][1:])
        np.testing.assert_allclose(got / got.sum(), expected / expected.sum(), atol=1e-6)


def test_heads_that_are_not_cached_are_refused_before_any_work(each_head: tuple[Project, str], tmp_path: Path) -> None:
    project = each_head[0].copy(tmp_path / "repo")
    before = project.files("data/weights")
    project.set({"postprocess.heads": [1, 4]})
    output = project.stage("postprocess", fails=True)
    assert "postprocess.heads: [4] not cached; there are rows of heads [0, 1, 2, 3]" in output
    assert "Traceback" not in output
    assert project.files("data/weights") == before

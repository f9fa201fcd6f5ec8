"""`dvc repro`: everything once, nothing twice, and after a change exactly what it touches."""

import json
import re
from pathlib import Path

import polars as pl
import pytest

from tests.e2e.conftest import STAGES, Project

pytestmark = pytest.mark.e2e


def ran(output: str) -> list[str]:
    """Stages that DVC really ran."""
    return re.findall(r"Running stage '(\w+)'", output)


@pytest.fixture
def project(run_project: Project, tmp_path: Path) -> Project:
    return run_project.copy(tmp_path / "repo")


def test_every_artifact_is_there_and_polars_reads_it(run_project: Project) -> None:
    data = run_project.root / "data"
    pairs = pl.read_parquet(data / "pairs" / "train.parquet")
    for name, per_pair in {"judge": 2, "verdicts": 2, "attention": 4, "weights": 2, "tokens": 1, "aligned": 1}.items():
        table = pl.scan_parquet(data / name / "train").collect()
        assert len(table) == per_pair * len(pairs), name
        assert table["pair_id"].unique(maintain_order=True).to_list() == pairs["pair_id"].to_list(), name
    sums = pl.scan_parquet(data / "weights" / "train").select(pl.col("weights").list.sum()).collect()["weights"]
    assert (sums - 1).abs().max() < 1e-5
    assert (run_project.root / "reports" / "index.md").is_file()
    assert (run_project.root / "models" / "policy" / "model.safetensors").is_file()


def test_a_second_run_does_nothing(project: Project) -> None:
    output = project.run("dvc", "repro")
    assert ran(output) == []
    assert "up to date" in output


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({"postprocess.sink_tokens": 0}, ["postprocess", "realign", "train", "evaluate", "report"]),
        ({"realign.eos_weight": "mean"}, ["realign", "train", "evaluate", "report"]),
        ({"evaluate.bootstrap_samples": 101}, ["evaluate", "report"]),
        ({"postprocess.top_tokens": 3}, ["postprocess", "report"]),
        ({"train.objective": "ipo"}, ["needs", "train", "evaluate", "report"]),
        ({"third.seed": 1, "score.gradient": {"norm": 2}}, ["needs"]),
        ({"weights.decay": {"gamma": 0.9}, "realign.flip_seed": 1}, ["needs", "realign"]),
        ({"runtime.token_budget": 512, "runtime.micro_batch_tokens": 512}, []),
    ],
)
def test_a_change_runs_what_it_touches(project: Project, change: dict[str, object], stages: list[str]) -> None:
    project.set(change)
    assert ran(project.run("dvc", "repro")) == stages


def test_switching_the_source_and_back_finds_the_cached_artifacts(project: Project) -> None:
    """Without a judge nothing is judged, `simpo` takes no reference; what was there before comes from the cache."""
    project.set({"weights.source": "uniform", "train.objective": "simpo", "train.settings": {"gamma": 0.5}})
    first = ran(project.run("dvc", "repro"))
    assert set(first) == set(STAGES) - {"model", "prepare", "tokenize", "score", "third"}
    for name in ("judge", "attention", "weights", "reference"):
        assert len(pl.scan_parquet(project.root / "data" / name / "train").collect()) == 0, name
    project.set({"weights.decay": {"gamma": 0.9}})
    assert ran(project.run("dvc", "repro")) == ["needs", "realign"]
    project.set({"weights.source": "judge", "weights.decay": {"gamma": 0.98, "first_exponent": 0}})
    project.set({"train.objective": "twdpo", "train.settings": {}})
    assert ran(project.run("dvc", "repro")) == []
    assert len(pl.scan_parquet(project.root / "data" / "attention" / "train").collect()) > 0


def test_an_experiment_and_a_diff_of_metrics(project: Project) -> None:
    output = project.run("dvc", "exp", "run", "-S", "postprocess.sink_tokens=0")
    assert "extract" not in ran(output)
    assert "reference" not in ran(output)
    assert "postprocess" in ran(output)
    changes = json.loads(project.run("dvc", "metrics", "diff", "--json"))
    assert any("postprocess.json" in file for file in changes)


def test_the_dag_names_the_stages(run_project: Project) -> None:
    dag = run_project.run("dvc", "dag")
    assert all(stage in dag for stage in STAGES)


def test_all_params_are_checked_before_the_first_stage(fresh_project: Project, tmp_path: Path) -> None:
    project = fresh_project.copy(tmp_path / "repo")
    project.set({"train.beta": -1.0, "evaluate.confidence": 2.0})
    output = project.stage("model", fails=True)
    assert "train.beta" in output
    assert "evaluate.confidence" in output
    assert "Traceback" not in output
    assert not (project.root / "models" / "judge.json").exists()

"""The comparison: rows share a store, a row that has been made is not trained again, one table comes out."""

import json
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.e2e.conftest import Project

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def project(fresh_project: Project, tmp_path_factory: pytest.TempPathFactory, root: Path) -> Project:
    project = fresh_project.copy(tmp_path_factory.mktemp("compare") / "repo")
    rows: dict[str, Any] = {
        "dpo": {"weights": {"source": "uniform"}, "train": {"objective": "dpo"}},
        "twdpo": {},
    }
    base = {"prepare": {"folder": "data/sample"}, "train": {"epochs": 1, "max_steps": 2}}
    write(project, {"rows": list(rows), "answers": 2, "bootstrap_samples": 100, "confidence": 0.9, "base": base,
                    "all": rows})  # fmt: skip
    shutil.copy(root / "compare" / "dvc.yaml", project.root / "compare")
    (project.root / "models").mkdir(exist_ok=True)
    project.run("git", "init", "-q")
    project.run("dvc", "init", "-q")
    project.commit("a clone")
    return project


def read(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load((project.root / "compare" / "params.yaml").read_text("utf-8"))
    return found


def write(project: Project, comparison: dict[str, Any]) -> None:
    folder = project.root / "compare"
    folder.mkdir(exist_ok=True)
    with (folder / "params.yaml").open("w", encoding="utf-8") as stream:
        YAML().dump(comparison, stream)


def row(project: Project, name: str, fails: bool = False) -> str:
    return project.run(sys.executable, "-m", "stages.compare_row", name, fails=fails)


def test_rows_share_what_they_have_in_common_and_are_not_trained_twice(project: Project) -> None:
    _, first, second = project.run("dvc", "repro", "compare/dvc.yaml:row").split("Running stage")
    assert "reference: reference" in first
    assert "reference: reference" not in second  # that of the first one
    assert all("train: train 2/2 steps" in of for of in (first, second))
    project.run("dvc", "repro", "compare/dvc.yaml")
    again = row(project, "twdpo")
    assert "extract: extract" not in again
    assert "train: train" not in again
    assert "evaluate: evaluate" not in again
    page = (project.root / "reports" / "compare" / "index.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in ("dpo", "twdpo"))
    assert (project.root / "reports" / "compare" / "accuracy.svg").is_file()
    asked = YAML(typ="safe").load((project.root / ".work" / "compare" / "dpo" / "params.yaml").read_text("utf-8"))
    published = "".join(
        file.read_text(encoding="utf-8", errors="replace") for file in (project.root / "compare" / "rows").rglob("*.*")
    )
    assert len(asked["evaluate"]["prompts"]) == 2
    assert not any(prompt in published for prompt in asked["evaluate"]["prompts"])
    assert json.loads((project.root / "compare" / "rows" / "dpo" / "row.json").read_text())["answer_tokens"]


def test_a_row_runs_again_when_its_pairs_change(project: Project, tmp_path: Path) -> None:
    copy = project.copy(tmp_path / "repo")
    assert "up to date" in copy.run("dvc", "status", "compare/dvc.yaml")
    pairs = copy.root / "data" / "sample" / "train.jsonl"
    pairs.write_text("".join(pairs.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    status = copy.run("dvc", "status", "compare/dvc.yaml")
    assert all(f"row@{name}" in status for name in ("dpo", "twdpo"))
    assert "data/sample" in status


def test_a_row_that_is_ended_goes_on_where_it_was(project: Project, tmp_path: Path) -> None:
    copy = project.copy(tmp_path / "repo")
    comparison = read(copy)
    comparison["base"]["train"] = {"epochs": 20, "max_steps": 60, "checkpoint_every_steps": 1, "eval_every_steps": 60}
    write(copy, comparison)
    running = copy.start(sys.executable, "-m", "stages.compare_row", "dpo")
    assert running.stdout is not None
    seen = ""
    while "train: train" not in seen:
        line = running.stdout.readline()
        assert line, seen
        seen += line
    time.sleep(1)
    running.terminate()
    running.communicate(timeout=60)
    assert running.returncode == 128 + signal.SIGTERM
    again = row(copy, "dpo")  # the stage that it ran has ended with it, or this one would be refused
    assert "resuming train: step" in again
    assert "train: train 60/60 steps" in again


def test_an_unknown_row_is_refused(project: Project) -> None:
    assert "no row 'dop' under `all`; there are dpo, twdpo" in row(project, "dop", fails=True)


def test_a_row_whose_params_do_not_fit_is_refused_before_any_work(project: Project, tmp_path: Path) -> None:
    copy = project.copy(tmp_path / "repo")
    comparison = read(copy)
    comparison["all"]["bad"] = {"train": {"objective": "dpo"}}
    write(copy, comparison)
    output = row(copy, "bad", fails=True)
    assert output.splitlines()[0] == "compare: row bad of compare/params.yaml: 1 problem(s)"
    assert "weights.source: judge and train.objective: dpo don't fit" in output
    assert "Traceback" not in output


def test_a_listed_row_that_the_data_refuse_stops_all_before_any_work(project: Project, tmp_path: Path) -> None:
    copy = project.copy(tmp_path / "repo")
    comparison = read(copy)
    comparison["all"]["tpo"] = {"weights": {"source": "uniform"}, "train": {"objective": "tpo"}}
    write(copy, {**comparison, "rows": ["dpo", "tpo"]})
    output = row(copy, "dpo", fails=True)
    assert "row tpo: needs: train.objective: tpo takes a third, best response, and no row of prepare.train" in output
    assert "train: train 2/2" not in output
    assert "Traceback" not in output


def test_pairs_that_are_not_there_are_said_with_their_path(project: Project, tmp_path: Path) -> None:
    copy = project.copy(tmp_path / "repo")
    comparison = read(copy)
    comparison["base"]["prepare"]["folder"] = "../nowhere"
    write(copy, comparison)
    output = row(copy, "dpo", fails=True)
    assert "compare/params.yaml: base.prepare.folder: " in output
    assert "is no folder" in output
    assert "Traceback" not in output


def test_a_table_without_its_rows_says_how_to_make_them(project: Project, tmp_path: Path) -> None:
    copy = project.copy(tmp_path / "repo")
    shutil.rmtree(copy.root / "compare" / "rows" / "dpo")
    output = copy.stage("compare", fails=True)
    assert output.strip() == "compare: compare/rows: nothing of dpo; make it with `make compare`"


def test_only_the_row_that_changed_is_trained_again(project: Project) -> None:
    """Last, as it changes the project: a copy of it would have no store."""
    comparison = read(project)
    comparison["all"]["twdpo"] = {"realign": {"flip_labels": 0.4}}
    write(project, comparison)
    output = project.run("dvc", "repro", "compare/dvc.yaml")
    assert "Running stage 'compare/dvc.yaml:row@twdpo'" in output
    assert "'compare/dvc.yaml:row@dpo' didn't change" in output
    assert "train: train 2/2 steps" in output
    # Labels are flipped after the judge was asked: attention and reference are those of the row before.
    assert "extract: extract" not in output
    assert "reference: reference" not in output

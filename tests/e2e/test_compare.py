"""The comparison: rows share a store, a row that has been made is not trained again, one table comes out."""

import json
import shutil
import sys
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


def test_an_unknown_row_is_refused(project: Project) -> None:
    assert "no row 'dop' under `all`; there are dpo, twdpo" in row(project, "dop", fails=True)


def test_a_row_whose_params_do_not_fit_is_refused_before_any_work(project: Project, tmp_path: Path) -> None:
    copy = project.copy(tmp_path / "repo")
    comparison = YAML(typ="safe").load((copy.root / "compare" / "params.yaml").read_text(encoding="utf-8"))
    comparison["all"]["bad"] = {"train": {"objective": "dpo"}}
    write(copy, comparison)
    output = row(copy, "bad", fails=True)
    assert output.splitlines()[0] == "compare: row bad of compare/params.yaml: 1 problem(s)"
    assert "weights.source: judge and train.objective: dpo don't fit" in output
    assert "Traceback" not in output

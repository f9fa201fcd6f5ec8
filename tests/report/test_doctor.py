"""`make doctor` finds what would fail, all of it, and loads no weights."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.report.doctor import examine


@pytest.fixture
def project(tmp_path: Path, root: Path, default_model_dir: Path) -> Path:
    shutil.copytree(root / "data" / "sample", tmp_path / "data" / "sample")
    shutil.copy(root / "params.yaml", tmp_path)
    change(tmp_path, {"model.judge": {"source": "folder", "name": str(default_model_dir)}})
    return tmp_path


def change(project: Path, changes: dict[str, Any]) -> None:
    yaml = YAML()
    params = yaml.load((project / "params.yaml").read_text())
    for key, value in changes.items():
        section, name = key.split(".")
        params[section][name] = value
    with (project / "params.yaml").open("w") as stream:
        yaml.dump(params, stream)


def errors(project: Path) -> list[str]:
    return [finding.text for finding in examine(project) if finding.level == "error"]


def test_nothing_stands_in_the_way_of_the_sample(project: Path) -> None:
    assert errors(project) == []


def test_every_problem_is_found_not_only_the_first(project: Path) -> None:
    change(
        project,
        {
            "extract.layers": [29, 30],
            "extract.heads": [0, 9],
            "prepare.test": "nowhere.jsonl",
            "tokenize.max_tokens": 9000,
        },
    )
    found = errors(project)
    assert len(found) == 4
    assert "no file nowhere.jsonl" in found[0]
    assert "`extract.layers` asks for [30], but the judge has 30 layers" in found[1]
    assert "`extract.heads` asks for [9], but the judge's layers have 9 heads" in found[2]
    assert (
        found[3]
        == "model.start: reads 8192 tokens, tokenize.max_tokens is 9000: lower tokenize.max_tokens or choose another"
        " model"
    )


def test_heads_that_the_judge_lacks_are_named_before_they_are_cached(project: Path) -> None:
    change(project, {"extract.heads": "each", "postprocess.heads": [0, 9]})
    [error] = errors(project)
    assert "postprocess.heads: [9] not cached; there are rows of heads [0, 1, 2, 3, 4, 5, 6, 7, 8]" in error


def test_rollout_looks_at_no_layer(project: Path) -> None:
    change(project, {"extract.source": "rollout", "extract.layers": [99]})
    assert errors(project) == []


def test_invalid_params_are_all_listed(project: Path) -> None:
    change(project, {"train.beta": -1, "evaluate.confidence": 3.0})
    assert len(errors(project)) == 1
    assert "train.beta" in errors(project)[0]
    assert "evaluate.confidence" in errors(project)[0]


def test_a_missing_model_folder_is_named(project: Path) -> None:
    change(project, {"model.judge": {"source": "folder", "name": "nowhere"}})
    assert any("model.judge.name" in error for error in errors(project))

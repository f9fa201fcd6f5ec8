"""The model stages by several processes: the bytes of one."""

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Project
from tests.e2e.test_faults import without

pytestmark = pytest.mark.e2e
OUTS = {"extract": ["data/attention", "data/verdicts"], "reference": ["data/reference"]}


@pytest.fixture
def project(run_project: Project, tmp_path: Path) -> Project:
    """Nothing of `extract` and `reference` is there, and two workers are asked for."""
    copy = run_project.copy(tmp_path / "repo")
    without(copy, ".work", *OUTS["extract"], *OUTS["reference"])
    copy.set({"runtime.workers": 2})
    return copy


@pytest.mark.parametrize("stage", ["extract", "reference"])
def test_two_workers_are_one(run_project: Project, project: Project, stage: str) -> None:
    output = project.stage(stage)
    assert "starting 2 workers" in output
    assert project.files(*OUTS[stage]) == run_project.files(*OUTS[stage])
    metrics = f"reports/metrics/{stage}.json"
    assert json.loads((project.root / metrics).read_text()) == json.loads((run_project.root / metrics).read_text())

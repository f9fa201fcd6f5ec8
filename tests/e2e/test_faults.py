"""SIGKILL, second writers, torn and foreign shards: named, resumed, never done twice."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.conftest import Project

pytestmark = pytest.mark.e2e


def finished_shards(project: Project, stage: str) -> dict[str, int]:
    """Finished files in the work folder, with the time of their writing."""
    return {
        str(file.relative_to(project.root)): file.stat().st_mtime_ns
        for file in (project.root / ".work" / stage).glob("*/*/*/part-*.parquet")
    }


def kill_after(project: Project, stage: str, shards: int) -> None:
    """Run a stage and kill it with SIGKILL as soon as so many shards are finished."""
    process = project.start(sys.executable, "-m", f"stages.{stage}")
    deadline = time.monotonic() + 120
    while len([name for name in finished_shards(project, stage) if "/refused/" in name]) < shards:
        assert process.poll() is None, f"{stage} ended before it could be killed: {process.communicate()[0]}"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def without(project: Project, *folders: str) -> None:
    """What DVC does before a stage runs: its outs are gone."""
    for folder in folders:
        subprocess.run(["rm", "-rf", str(project.root / folder)], check=True)


@pytest.fixture
def project(run_project: Project, tmp_path: Path) -> Project:
    copy = run_project.copy(tmp_path / "repo")
    without(copy, ".work")
    return copy


@pytest.mark.parametrize(
    ("stage", "outs"), [("extract", ["data/attention", "data/verdicts"]), ("reference", ["data/reference"])]
)
def test_a_killed_stage_goes_on_and_gives_the_same_bytes(project: Project, stage: str, outs: list[str]) -> None:
    whole = project.files(*outs)
    without(project, *outs)
    for shards in (1, 3, 5):
        before = finished_shards(project, stage)
        kill_after(project, stage, shards)
        after = finished_shards(project, stage)
        assert before.items() <= after.items(), "a finished shard was written again"
    before = finished_shards(project, stage)
    output = project.stage(stage)
    assert "resuming" in output
    after = finished_shards(project, stage)
    assert before.items() <= after.items()
    assert project.files(*outs) == whole


def test_a_second_writer_is_refused(project: Project) -> None:
    without(project, "data/attention", "data/verdicts")
    first = project.start(sys.executable, "-m", "stages.extract")
    deadline = time.monotonic() + 120
    while not list((project.root / ".work").glob("extract/*/lock.json")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)
    try:
        output = project.stage("extract", fails=True)
        assert f"process {first.pid} on" in output
        assert "Traceback" not in output
    finally:
        first.send_signal(signal.SIGCONT)
        assert first.wait() == 0


def test_a_torn_shard_is_named(project: Project) -> None:
    shard = project.root / "data/attention/train/part-00001.parquet"
    content = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(content[:-20])
    output = project.stage("postprocess", fails=True)
    assert "data/attention/train/part-00001.parquet: torn" in output


def test_a_nan_in_a_weight_is_named_with_its_pair(project: Project) -> None:
    shard = project.root / "data/weights/train/part-00000.parquet"
    table = pq.read_table(shard)
    rows = table.to_pylist()
    rows[3]["weights"][2] = float("nan")
    shard.unlink()
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), shard)
    output = project.stage("realign", fails=True)
    assert rows[3]["pair_id"] in output
    assert "nan" in output.lower()
    assert "Traceback" not in output


def test_results_do_not_depend_on_the_token_budget(project: Project) -> None:
    first = {split: attention(project, split) for split in ("train", "test")}
    without(project, "data/attention", "data/verdicts")
    project.set({"runtime.token_budget": 700})
    project.stage("extract")
    for split, rows in first.items():
        for one, other in zip(rows, attention(project, split), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


def attention(project: Project, split: str) -> list[np.ndarray]:
    folder = project.root / "data/attention" / split
    return [
        np.array(row, dtype=np.float32)
        for file in sorted(folder.glob("*.parquet"))
        for row in pq.read_table(file)["round_1"].to_pylist()
    ]

"""Several processes of one stage: the bytes of one process, failures named, nothing lost, nobody left behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

PAIRS = 15
SHARDS = 8
FAKE = Path(__file__).with_name("fake_stage.py")
REPOSITORY = Path(__file__).resolve().parents[2]


def set_up(folder: Path) -> Path:
    """Make `python -m stages.fake` run in a folder."""
    (folder / "stages").mkdir()
    for file in ("__init__.py", "common.py"):
        shutil.copy(REPOSITORY / "stages" / file, folder / "stages")
    shutil.copy(FAKE, folder / "stages" / "fake.py")
    (folder / "params.yaml").write_text("{}\n")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return set_up(tmp_path)


def start(root: Path, workers: int, **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "WORKERS": str(workers), **variables}
    return subprocess.Popen(
        [sys.executable, "-m", "stages.fake"], cwd=root, env=environment, text=True, stderr=subprocess.PIPE
    )


def run(root: Path, workers: int, fails: bool = False, **variables: str) -> str:
    """What the stage says on stderr."""
    process = start(root, workers, **variables)
    _, said = process.communicate(timeout=120)
    assert (process.returncode != 0) == fails, said
    return said


def notes(root: Path) -> list[tuple[int, str]]:
    """What the stage's processes did so far, with their process ids."""
    file = root / "made.log"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(int(pid), text) for pid, text in (line.split(maxsplit=1) for line in lines)]


def made(root: Path) -> list[str]:
    """Shards in the order of their making."""
    return [text for _, text in notes(root) if text.startswith("makes")]


def published(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.glob("data/**/*.parquet"))}


def finished(root: Path) -> dict[str, int]:
    """Files of finished shards in the work folder, with the time of their writing."""
    return {
        str(file.relative_to(root)): file.stat().st_mtime_ns for file in root.glob(".work/fake/*/*/*/part-*.parquet")
    }


def log_lines(root: Path) -> list[dict[str, Any]]:
    """The JSON-lines log; every line of it must be whole."""
    [file] = (root / "logs").glob("fake-*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process publishes."""
    folder = set_up(tmp_path_factory.mktemp("one"))
    run(folder, 1)
    assert len({pid for pid, _ in notes(folder)}) == 1
    return published(folder)


def test_three_workers_publish_the_bytes_of_one_process(root: Path, one_process: dict[str, bytes]) -> None:
    said = run(root, 3)
    assert published(root) == one_process
    assert len(one_process) == SHARDS
    # Dealt by rank, over all splits; the workers alone open a model, and none goes on after its share.
    opened = [pid for pid, text in notes(root) if text == "opens"]
    assert len(opened) == 3
    shares = [[text for pid, text in notes(root) if pid == opener and text.startswith("makes")] for opener in opened]
    every = [f"makes train {shard}" for shard in range(6)] + ["makes test 0", "makes test 1"]
    assert sorted(shares) == sorted(every[rank::3] for rank in range(3))
    [after] = [pid for pid, text in notes(root) if text == "after"]
    assert after not in opened
    # One progress, for all pairs and tokens, and totals of all workers.
    [line] = [line for line in said.splitlines() if "pairs/s" in line]
    assert f"fake {PAIRS}/{PAIRS} pairs" in line
    [last] = [line for line in log_lines(root) if "done" in line]
    assert (last["done"], last["total"]) == (PAIRS, PAIRS)
    totals = json.loads((root / "totals.json").read_text())
    assert (totals["pairs"], totals["tokens"], totals["workers"]) == (PAIRS, 100 * PAIRS, 3)
    assert totals["counts"] == {"flops": 0.5 * PAIRS}
    assert 0 < totals["seconds"] < 60


def test_no_more_workers_than_missing_shards(root: Path, one_process: dict[str, bytes]) -> None:
    run(root, 12)
    assert published(root) == one_process
    assert len({pid for pid, text in notes(root) if text == "opens"}) == SHARDS
    # All is there: no model is loaded, no process started, nothing counted as made.
    (root / "totals.json").unlink()
    (root / "made.log").unlink()
    run(root, 12)
    assert [text for _, text in notes(root)] == ["after"]
    assert not (root / "totals.json").exists()
    # One is missing: one worker makes it, with as many threads as it had beside the others.
    [shard] = root.glob(".work/fake/*/reference/train/part-00003.parquet")
    shard.unlink()
    run(root, 12)
    opened = [pid for pid, text in notes(root)[1:] if text == "opens"]
    assert len(opened) == 1
    assert opened != [notes(root)[-1][0]]
    assert json.loads((root / "totals.json").read_text())["pairs"] == 2
    assert published(root) == one_process


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("kill", r"killed by SIGKILL; where memory ran out, choose fewer processes \(runtime\.workers\)"),
        ("refuse", "pair train-4: a score is not finite; try float32\nand look at the model"),
        ("defect", "exit status 1; .*its last line: ZeroDivisionError: a defect"),
    ],
)
def test_a_worker_that_fails_takes_nothing_with_it(
    root: Path, one_process: dict[str, bytes], fault: str, message: str
) -> None:
    said = run(root, 2, fails=True, FAULT=f"train 2 {fault}")
    # The launcher's last words: the worker, its shard, its message, and what to do.
    last = said[said.index("fake: worker 0 of 2 failed at train shard 2: ") :]
    assert re.search(message, last)
    assert "run the stage again to make the rest" in last
    assert "Traceback" not in last
    assert ("worker 0: about to die" in said) == (fault == "kill")
    # The other went on to its end; the shard that was made before the failure is kept. Nothing is published.
    assert sorted(made(root)) == ["makes test 1", "makes train 0", "makes train 1", "makes train 3", "makes train 5"]
    assert published(root) == {}
    assert not list(root.glob(".work/fake/*/lock.json"))
    # Again, with another number of workers: only the rest.
    before = finished(root)
    assert len(before) == 5 * 2
    (root / "made.log").unlink()
    said = run(root, 3)
    assert sorted(made(root)) == ["makes test 0", "makes train 2", "makes train 4"]
    assert before.items() <= finished(root).items()
    assert published(root) == one_process
    totals = json.loads((root / "totals.json").read_text())
    assert (totals["pairs"], totals["tokens"]) == (6, 600)
    assert f"fake {PAIRS}/{PAIRS} pairs" in said


def test_what_stops_all_workers_is_said_once(root: Path) -> None:
    said = run(root, 2, fails=True, FAULT="none 0 cannot open")
    last = said[said.index("fake: worker") :]
    assert last.count("layer 99 is not there; the model has 2") == 1
    assert "worker 0 of 2 failed before its first shard" in last
    assert "worker 1 of 2 failed before its first shard" in last


def test_a_worker_that_sees_another_run_does_not_work(root: Path) -> None:
    said = run(root, 2, fails=True, DEPENDS="changed")
    assert "changed while the workers were starting; run the stage again" in said
    assert made(root) == []


def hanging(root: Path) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A launcher whose two workers work: one hangs, the other has made its share and ended, or will."""
    launcher = start(root, 2, FAULT="train 1 hang")
    deadline = time.monotonic() + 60
    while "begins train 1" not in [text for _, text in notes(root)]:
        assert launcher.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return launcher, psutil.Process(launcher.pid).children(recursive=True)


def test_workers_die_with_their_launcher(root: Path, one_process: dict[str, bytes]) -> None:
    launcher, workers = hanging(root)
    launcher.send_signal(signal.SIGKILL)
    launcher.communicate()
    assert workers
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
    before = finished(root)
    run(root, 2)
    assert before.items() <= finished(root).items()
    assert published(root) == one_process


def test_an_interrupted_launcher_stops_its_workers(root: Path) -> None:
    launcher, workers = hanging(root)
    began = time.monotonic()
    launcher.send_signal(signal.SIGINT)
    _, said = launcher.communicate(timeout=30)
    assert time.monotonic() - began < 8  # they end by themselves
    assert launcher.returncode == 1
    assert said.strip().endswith("fake: interrupted; run again to go on where it stopped")
    assert "Traceback" not in said
    assert "cleans up" in [text for _, text in notes(root)]
    _, alive = psutil.wait_procs(workers, timeout=1)
    assert not alive
    assert not list(root.glob(".work/fake/*/lock.json"))


def test_a_worker_on_another_device_kind_than_its_launcher_is_refused(root: Path) -> None:
    from pipeline.errors import ShardError
    from pipeline.io.work import Run, join_work, open_work

    def on(device: str) -> Run:
        return Run("fake", {"params": {}}, {}, {"device": device}, allow_mixed=True)

    with open_work(root, on("cuda"), []):
        join_work(root, on("cuda"), [])
        with pytest.raises(ShardError, match=r"this worker has \{'device': 'cpu'\}, its launcher \{'device': 'cuda'\}"):
            join_work(root, on("cpu"), [])

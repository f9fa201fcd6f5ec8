"""TensorBoard and W&B get every step once, also after a resume; they send nothing, and never stop a training."""

import json
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.io.progress import Progress
from pipeline.models.manifest import Manifest
from pipeline.train import trackers
from pipeline.train.curves import Line
from pipeline.train.learner import Learner
from pipeline.train.run import run_training
from pipeline.train.trackers import Trackers
from tests.train.tiny import make_job

BOTH = ["tensorboard", "wandb"]
Points = dict[str, list[tuple[int, float]]]
"""By figure its (step, value) in the order of the file."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


def tensorboard_points(folder: Path) -> Points:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # As it is in the file: without TensorBoard's own clearing away of steps that came twice.
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}, purge_orphaned_data=False).Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def wandb_records(folder: Path) -> Iterator[Any]:
    """Records of the only run in a folder: LevelDB's log format, blocks of 32 KiB, behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    [file] = folder.glob("wandb/offline-run-*/run-*.wandb")
    content, place, parts = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if 2**15 - place % 2**15 < 7:
            place += 2**15 - place % 2**15
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part of several
            yield Record.FromString(parts)
            parts = b""


def wandb_points(folder: Path) -> Points:
    points: Points = {}
    for record in wandb_records(folder):
        if record.HasField("history"):
            values = {".".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
            for name, value in values.items():
                if not name.startswith("_"):
                    points.setdefault(name, []).append((int(values["_step"]), json.loads(value)))
    return points


def line(step: int) -> Line:
    made = {"step": float(step), "train/loss": 0.5 * step, "train/rewards/margins": -float(step)}
    return made | ({"validation/loss": 0.25} if step == 2 else {})


EXPECTED = {
    "train/loss": [(1, 0.5), (2, 1.0), (3, 1.5)],
    "train/rewards/margins": [(1, -1.0), (2, -2.0), (3, -3.0)],
    "validation/loss": [(2, 0.25)],
}


def test_each_step_is_there_once_after_a_resume(tmp_path: Path) -> None:
    first = Trackers(BOTH, tmp_path, "key", {"beta": 0.5}, [])
    for step in (1, 2, 3):
        first.add(line(step))
    first.close()
    again = Trackers(BOTH, tmp_path, "key", {"beta": 0.5}, [line(1), line(2)])  # step 3 came after the checkpoint
    again.add(line(3))
    again.close()
    assert tensorboard_points(tmp_path / "tensorboard" / "key") == EXPECTED
    assert wandb_points(tmp_path / "wandb" / "key") == EXPECTED
    [config] = [
        update.value_json
        for record in wandb_records(tmp_path / "wandb" / "key")
        if record.HasField("run")
        for update in record.run.config.update
        if update.key == "beta"
    ]
    assert config == "0.5"


def test_other_runs_stay(tmp_path: Path) -> None:
    for run in ("one", "two"):
        trackers_of_run = Trackers(["tensorboard"], tmp_path, run, {}, [line(1)])
        trackers_of_run.close()
    assert {item.name for item in (tmp_path / "tensorboard").iterdir()} == {"one", "two"}


def test_a_killed_training_goes_on_in_the_trackers(
    root: Path, start: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(root, start, runtime={"trackers": BOTH})
    step = Learner.step

    def broken(self: Learner, number: int, pairs: Any) -> dict[str, float]:
        if number == 7:
            raise KeyboardInterrupt
        return step(self, number, pairs)

    monkeypatch.setattr(Learner, "step", broken)
    with pytest.raises(KeyboardInterrupt):
        run_training(job)  # seven steps are done, six of them in the last checkpoint
    monkeypatch.setattr(Learner, "step", step)
    history = run_training(job).history
    names = {name for one in history for name in one if name != "step"}
    expected = {name: [(int(one["step"]), one[name]) for one in history if name in one] for name in names}
    assert len(expected["train/loss"]) == 10
    assert wandb_points(root / "wandb" / "work") == expected
    found = tensorboard_points(root / "tensorboard" / "work")
    assert found.keys() == names
    for name, points in found.items():
        assert [point[0] for point in points] == [point[0] for point in expected[name]]
        assert [point[1] for point in points] == pytest.approx([point[1] for point in expected[name]], rel=1e-6)


def test_wandb_sends_nothing_and_says_nothing_of_the_machine(tmp_path: Path) -> None:
    # Someone with an account, in a repository, with a server at hand.
    home, project = tmp_path / "home", tmp_path / "project"
    home.mkdir()
    project.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    remote = "https://host.invalid/secret.git"
    subprocess.run(["git", "remote", "add", "origin", remote], cwd=project, check=True)
    (project / "program_with_a_name.py").write_text(
        "from pathlib import Path\n"
        "from pipeline.train.trackers import Trackers\n"
        "print('seen on the console')\n"
        "made = Trackers(['wandb'], Path('reports'), 'key', {}, [])\n"
        "made.add({'step': 1.0, 'train/loss': 0.5})\n"
        "made.close()\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        environment = {
            "HOME": str(home),
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
            "WANDB_BASE_URL": f"http://127.0.0.1:{server.getsockname()[1]}",
            "WANDB_API_KEY": "0123456789" * 4,
        }
        command = [sys.executable, "program_with_a_name.py"]
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""  # no warning either
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    folder = project / "reports" / "wandb" / "key"
    assert wandb_points(folder) == {"train/loss": [(1, 0.5)]}
    assert not list(home.iterdir())
    assert {item.name for item in project.iterdir()} == {".git", "program_with_a_name.py", "reports"}
    records = b"".join(record.SerializeToString() for record in wandb_records(folder))
    for private in (remote, "program_with_a_name", str(project), "seen on the console"):
        assert private.encode() not in records
    assert not [record.run.host for record in wandb_records(folder) if record.run.host]
    assert not [item for item in folder.glob("wandb/offline-run-*/files/*") if item.is_file()]


class Full:
    """A tracker on a disk that is full from its second line on."""

    def __init__(self, folder: Path, config: Any) -> None:
        self.lines = 0

    def write(self, step: int, figures: Any) -> None:
        self.lines += 1
        if self.lines > 1:
            raise OSError(28, "No space left on device")

    def close(self) -> None:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("lines", [0, 3])
def test_a_failing_tracker_is_left_out_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lines: int
) -> None:
    monkeypatch.setitem(trackers._KINDS, "wandb", Full)
    with caplog.at_level(logging.WARNING, logger="pipeline"):
        made = Trackers(["wandb", "tensorboard"], tmp_path, "key", {}, [])
        for step in range(lines):
            made.add({"step": float(step), "train/loss": 1.0})
        made.close()
    assert len(caplog.records) == 1
    assert "runtime.trackers: wandb failed" in caplog.text
    assert "No space left on device" in caplog.text
    found = tensorboard_points(tmp_path / "tensorboard" / "key")
    assert found == ({"train/loss": [(step, 1.0) for step in range(lines)]} if lines else {})


def test_a_tracker_that_can_t_begin_costs_no_training(
    root: Path, start: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "tensorboard").write_text("not a folder")
    (root / "wandb").write_text("not a folder")
    with caplog.at_level(logging.WARNING, logger="pipeline"):
        finished = run_training(make_job(root, start, {"max_steps": 2}, {"trackers": BOTH}))
    assert len(finished.history) == 2
    assert [record.getMessage().split(":")[1].split()[0] for record in caplog.records] == BOTH


def test_a_package_that_is_not_installed(
    root: Path, start: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path / "nothing")])
    monkeypatch.setattr("sys.meta_path", [finder for finder in sys.meta_path if "editable" not in str(finder).lower()])
    (tmp_path / "nothing" / "wandb").mkdir(parents=True)  # W&B's own folder of runs is not its package
    for name in [name for name in sys.modules if name.split(".")[0] == "wandb"]:
        monkeypatch.delitem(sys.modules, name)
    job = make_job(root, replace(start, path=root / "no-model"), runtime={"trackers": ["wandb"]})
    with pytest.raises(ConfigError, match=r"runtime\.trackers: the package wandb .*pip install 'attentionpo\[watch\]'"):
        run_training(job)


def test_progress_of_a_resumed_run(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    monkeypatch.setattr("pipeline.io.progress.time.monotonic", lambda: now[0])
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    progress = Progress("train", 100, unit="steps", done=60)
    now[0] += 20.0
    with caplog.at_level(logging.INFO, logger="pipeline"):
        progress.advance(10, 4000, "loss 0.5000", {"train/loss": 0.5})
    [record] = caplog.records
    assert record.getMessage() == "train 70/100 steps, 0.50 steps/s, 200 tokens/s, 1:00 left, loss 0.5000"
    fields = vars(record)
    assert (fields["done"], fields["total"], fields["rate"]) == (70, 100, 0.5)
    assert (fields["tokens_per_s"], fields["seconds_left"], fields["train/loss"]) == (200.0, 60.0, 0.5)

"""Launcher and workers without a stage: who ends when, and with whom."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.io import workers
from pipeline.io.seat import VARIABLE
from pipeline.io.tally import Item, Tally
from pipeline.io.workers import run_workers

STUBBORN = """
import signal, subprocess, time
from pipeline.io.seat import take_seat

seat = take_seat()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "600"])
seat.begin(("train", 0))
time.sleep(600)
"""


class Interrupted(Tally):
    """Ctrl-C as soon as the first worker works."""

    seen: list[psutil.Process]

    def __init__(self, pairs: dict[Item, int]) -> None:
        super().__init__("fake", pairs)
        # What earlier tests of this process have left.
        self._before = psutil.Process().children(recursive=True)

    def begin(self, item: Item) -> None:
        self.seen = [child for child in psutil.Process().children(recursive=True) if child not in self._before]
        raise KeyboardInterrupt


def lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_worker_that_does_not_end_is_killed_with_what_it_started(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_GRACE_SECONDS", 0.5)
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    tally = Interrupted({("train", 0): 1})
    with pytest.raises(KeyboardInterrupt):
        run_workers("stubborn", tmp_path, tmp_path, "key", [("train", 0)], [()], {"PYTHONPATH": str(root)}, tally)
    assert len(tally.seen) == 2
    deadline = time.monotonic() + 5
    while any(lives(process) for process in tally.seen):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_worker_whose_launcher_died_before_it_began_does_not_begin(root: Path) -> None:
    read, write = os.pipe()
    place = {"rank": 0, "world": 2, "key": "key", "launcher": os.getpid() + 1, "pipe": write}
    script = "from pipeline.io.seat import take_seat; take_seat(); print('works')"
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=root,
        env={**os.environ, VARIABLE: json.dumps(place)},
        pass_fds=(write,),
        capture_output=True,
        text=True,
    )
    os.close(read)
    os.close(write)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert "launcher of this worker is gone" in ended.stderr

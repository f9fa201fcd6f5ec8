"""What stops one of several training processes stops all of them, at once and in its own words."""

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PipelineError
from pipeline.models.manifest import Manifest
from pipeline.train import launch
from pipeline.train.checkpoint import Checkpoints
from pipeline.train.order import shuffled_order
from pipeline.train.stream import PairArtifacts, open_split
from tests.train.test_stage import project, run_stage, work_of  # noqa: F401  (a fixture)
from tests.train.tiny import PARAMS, make_rows, write_split

STEP = 3
"""Counted from 0: checkpoints are there by then."""


def pairs_of(root: Path, rank: int) -> list[str]:
    """The pairs that one of two processes has of the batch of `STEP`."""
    stream = open_split(PairArtifacts.below(root / "data"), "train")
    each = PARAMS["global_batch_pairs"] // 2
    begin = STEP * PARAMS["global_batch_pairs"] + rank * each
    return [pair.pair_id for pair in stream.block(shuffled_order(42, 0, stream.shard_rows), begin, begin + each)]


def test_a_loss_of_one_process_that_is_not_finite_stops_both(project: Path, start: Manifest) -> None:  # noqa: F811
    broken = pairs_of(project, rank=1)[0]
    rows = make_rows(start, 22)
    for row in rows["aligned"]:
        if row["pair_id"] == broken:
            row["chosen_weights"][0], row["chosen_length"] = 3e38, 1e3  # finite themselves
    write_split(project / "data", "train", rows)
    failed = run_stage(project)
    ended = time.time()
    assert failed.returncode == 1
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith(f"train: step {STEP}: loss or rewards are not finite for pair {broken}.")
    folder, depends = work_of(project)
    # Far below the collectives' own time limit of half an hour.
    assert ended - (folder / "failure-1.txt").stat().st_mtime < 60
    assert Checkpoints(folder / "checkpoints", depends).steps() == [2, 3]
    assert not list(project.glob(".work/train/*/lock.json"))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({0: "pair a", 1: "pair b"}, r"^pair a\npair b$"),
        ({0: "pair a", 1: "pair a"}, r"^pair a$"),
        ({1: "pair b"}, r"^pair b$"),
        ({}, "a training process ended with status 1; its own message is above"),
    ],
)
def test_every_process_is_heard_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: dict[int, str], message: str
) -> None:
    (tmp_path / "failure-0.txt").write_text("of an earlier run")

    class Ended:
        def __init__(self, *_: Any, **__: Any) -> None:
            for rank, text in said.items():
                (tmp_path / f"failure-{rank}.txt").write_text(text)

        def wait(self) -> int:
            return 1

    monkeypatch.setattr(subprocess, "Popen", Ended)
    with pytest.raises(PipelineError, match=message):
        launch.launch("module", 2, 1, tmp_path, tmp_path)

"""The end of a run: what it leaves in its work folder, and how that becomes the stage's outs."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.io.atomic import link_or_copy, write_json
from pipeline.train.curves import Curves, Line

CHECKPOINTS, POLICY, _FINISHED = "checkpoints", "policy", "finished.json"


@dataclass(frozen=True)
class Finished:
    """A finished run in numbers. `history`: one line per step, with every curve's value."""

    summary: dict[str, Any]
    history: Sequence[Line]


def write_finished(work: Path, finished: Finished) -> None:
    """Mark a work folder whose `policy/` is whole."""
    write_json(work / _FINISHED, asdict(finished))


def read_finished(work: Path) -> Finished | None:
    """The numbers of a finished run; none while it is not."""
    path = work / _FINISHED
    if not (path.is_file() and (work / POLICY).is_dir()):
        return None
    return Finished(**json.loads(path.read_text(encoding="utf-8")))


def publish(work: Path, finished: Finished, policy: Path, curves: Path) -> None:
    """Put policy and curves in their places, then drop the checkpoints.

    The work folder keeps its names of the policy's files: killed before DVC has recorded the outs, the stage finds them
    deleted and publishes again. They cost no space where the file system has hard links.
    """
    fresh = policy.parent / f".{policy.name}.publishing"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for file in (work / POLICY).iterdir():
        link_or_copy(file, fresh / file.name)
    shutil.rmtree(policy, ignore_errors=True)
    os.rename(fresh, policy)
    Curves(curves, finished.history)
    shutil.rmtree(work / CHECKPOINTS, ignore_errors=True)

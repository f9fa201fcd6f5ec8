"""SIGKILL at several moments: run again, a training gives the losses and the policy of an uninterrupted one."""

import multiprocessing
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from pipeline.io.digest import file_digest
from pipeline.models.manifest import Manifest
from pipeline.train.checkpoint import Checkpoints
from pipeline.train.run import Job
from tests.train.killed import MOMENTS, train, train_and_die
from tests.train.tiny import loss_curves, losses, make_job


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    """Imports once; every process is forked from there."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.killed", "torch.distributed.checkpoint", "dvclive"])
    return context


def exit_code(server: ForkServerContext, target: Callable[..., None], *args: Any) -> int | None:
    process = server.Process(target=target, args=args)
    process.start()
    process.join()
    return process.exitcode


def result(job: Job) -> tuple[list[float], str, dict[str, str]]:
    """Losses, digest of the policy's weights, curves."""
    checkpoints = Checkpoints(job.work / "checkpoints", job.depends)
    history = checkpoints.read_state(checkpoints.steps()[-1]).history
    return losses(history), file_digest(job.work / "policy" / "model.safetensors"), loss_curves(job)


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, Any]:
    return {}


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_result_is_that_of_an_uninterrupted_run(
    root: Path, start: Manifest, server: ForkServerContext, uninterrupted: dict[str, Any], moment: str
) -> None:
    job = make_job(root, start)
    if not uninterrupted:
        whole = replace(job, work=root / "whole")
        assert exit_code(server, train, whole) == 0
        uninterrupted["result"] = result(whole)
    assert exit_code(server, train_and_die, job, moment) == -signal.SIGKILL
    before = Checkpoints(job.work / "checkpoints", job.depends).steps()
    assert exit_code(server, train, job) == 0
    assert result(job) == uninterrupted["result"]
    assert bool(before) == (moment != "first backward")

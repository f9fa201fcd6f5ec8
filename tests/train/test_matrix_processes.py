"""Objectives that take more than the policy's log-probs, in two processes: the losses of one."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.config.objective import SPECS, third_kind
from pipeline.models.manifest import Manifest, write_manifest
from pipeline.train.batch import split_pairs
from pipeline.train.finish import read_finished
from pipeline.train.objective import open_objective
from pipeline.train.order import shuffled_order
from pipeline.train.run import Job, run_training
from pipeline.train.stream import open_split
from tests.train.tiny import PARAMS, losses, make_job, make_rows, make_third, write_split

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS, PROCESSES = 3, 2
SHORT = {"epochs": 1, "global_batch_pairs": 8, "warmup_ratio": 0.0, "eval_every_steps": 2}
TIMEOUT = 120
"""Seconds; processes that wait for each other for ever end there."""
CASES: dict[str, dict[str, Any]] = {
    "kto": {"objective": "kto"},
    "tpo": {"objective": "tpo"},
    "tidpo_tdpo2 with LoRA": {"objective": "tidpo_tdpo2", "lora": {"rank": 4, "alpha": 8}, "learning_rate": 1e-2},
}


@pytest.fixture
def project(tmp_path: Path, start: Manifest) -> Path:
    """A root with a manifest and no data."""
    (tmp_path / "models").mkdir()
    write_manifest(tmp_path / "models" / "start.json", start)
    return tmp_path


def write_data(data: Path, start: Manifest, objective: str) -> None:
    """24 train and 5 validation pairs with what an objective takes; in an evaluation, the second process has none."""
    for split, number, seed in (("train", 24, 0), ("validation", 5, 1)):
        rows = make_rows(start, number, seed=seed)
        if third_kind(SPECS[objective].needs):
            rows["third"] = make_third(rows, start, seed)
        if "ref_logps" not in SPECS[objective].needs:
            del rows["reference"]
        write_split(data, split, rows)


def in_processes(project: Path, params: dict[str, Any], budget: int) -> list[float]:
    runtime = {"processes": PROCESSES, "threads": 1, "micro_batch_tokens": budget, "device": "cpu"}
    with (project / "params.yaml").open("w") as stream:
        YAML().dump({"train": params, "runtime": runtime}, stream)
    command = [sys.executable, "-m", "stages.train"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    [record] = (project / ".work" / "train").glob("*/run.json")
    finished = read_finished(record.parent)
    assert finished is not None
    return losses(finished.history)


def uneven_budget(job: Job) -> int:
    """Tokens of a micro-batch with which the processes have different numbers of them in some step."""
    stream = open_split(job.artifacts, "train")
    order = shuffled_order(job.params.seed, 0, stream.shard_rows)
    three = open_objective(job.params).sides == 3
    pairs = [pair if three else replace(pair, third=None) for pair in stream.block(order, 0, len(stream))]
    each = job.params.global_batch_pairs // PROCESSES
    shares = [pairs[begin : begin + each] for begin in range(0, len(pairs), each)]
    for budget in range(30, 200):
        counts = [len(split_pairs(share, budget, job.runtime.share_prompts)) for share in shares]
        if any(counts[step * PROCESSES] != counts[step * PROCESSES + 1] for step in range(STEPS)):
            return budget
    raise AssertionError("with every budget, the processes have as many micro-batches")


@pytest.mark.parametrize("name", CASES)
def test_two_processes_are_one(name: str, project: Path, start: Manifest) -> None:
    params = {**PARAMS, **SHORT, **CASES[name]}
    write_data(project / "data", start, params["objective"])
    single = make_job(project, start, params, {"micro_batch_tokens": 1})
    expected = losses(run_training(replace(single, work=project / "single")).history)
    assert len(set(expected)) == len(expected) == STEPS + 2
    assert in_processes(project, params, uneven_budget(single)) == pytest.approx(expected, abs=1e-4)

"""`python -m stages.train` with two processes: the curve of one process, resumed after SIGKILL, errors passed on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from ruamel.yaml import YAML
from transformers import AutoModelForCausalLM

from pipeline.config.runtime import RuntimeParams
from pipeline.config.train import TrainParams
from pipeline.errors import LockError
from pipeline.io.digest import tree_digest
from pipeline.models.manifest import Manifest, write_manifest
from pipeline.train.checkpoint import Checkpoints
from pipeline.train.curves import Line
from pipeline.train.finish import read_finished
from pipeline.train.learner import Learner
from pipeline.train.run import run_training
from stages.common import Stage
from stages.train import work
from tests.train.tiny import PARAMS, interrupt_once, losses, make_job, make_rows, write_split

COMMAND = [sys.executable, "-m", "stages.train"]


REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(root: Path, start: Manifest) -> Path:
    """A root with code, params for two processes, and a manifest."""
    for name in ("pipeline", "stages"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "models").mkdir()
    write_manifest(root / "models" / "start.json", start)
    write_params(root, PARAMS)
    return root


def write_params(root: Path, params: dict[str, Any]) -> None:
    runtime = {"processes": 2, "threads": 1, "micro_batch_tokens": 1, "device": "cpu"}
    with (root / "params.yaml").open("w") as stream:
        YAML().dump({"train": params, "runtime": runtime}, stream)


def run_stage(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(COMMAND, cwd=root, capture_output=True, text=True)


def work_of(root: Path) -> tuple[Path, dict[str, Any]]:
    """The only work folder, and what its run depends on."""
    [record] = (root / ".work" / "train").glob("*/run.json")
    return record.parent, json.loads(record.read_text())["depends"]


def history(root: Path) -> Sequence[Line]:
    finished = read_finished(work_of(root)[0])
    assert finished is not None
    return finished.history


def test_two_processes_are_one_also_after_sigkill(project: Path, start: Manifest) -> None:
    # Five validation pairs, one to a micro-batch: the processes have different numbers of them.
    write_params(project, {**PARAMS, "epochs": 6, "checkpoint_every_steps": 1})
    killed = subprocess.Popen(COMMAND, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while killed.poll() is None and not list(project.glob(".work/train/*/checkpoints/step-*")):
        time.sleep(0.02)
    workers = psutil.Process(killed.pid).children(recursive=True)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(workers) >= 3  # torchrun and two workers
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
    folder, depends = work_of(project)
    whole = Checkpoints(folder / "checkpoints", depends).steps()
    assert whole
    assert whole[-1] < 30
    shutil.copytree(folder / "checkpoints", project / "moved" / "checkpoints")

    resumed = run_stage(project)
    assert resumed.returncode == 0, resumed.stderr
    assert f"resuming train: step {whole[-1]} of 30" in resumed.stderr
    assert resumed.stderr.count("resuming train") == 1  # the first process alone speaks
    metrics = json.loads((project / "reports" / "metrics" / "train.json").read_text())
    assert metrics["steps"] == 30
    assert AutoModelForCausalLM.from_pretrained(project / "models" / "policy").dtype.itemsize == 4

    single = replace(make_job(project, start, {"epochs": 6}), work=project / "single")
    assert losses(history(project)) == pytest.approx(losses(run_training(single).history), abs=1e-4)

    # One process goes on from what two have saved.
    params = TrainParams.model_validate(depends["params"])
    moved = run_training(replace(single, params=params, work=project / "moved", depends=depends))
    assert losses(moved.history) == pytest.approx(losses(history(project)), abs=1e-4)


def test_two_processes_go_on_from_what_one_has_saved(
    project: Path, start: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params(project, {**PARAMS, "checkpoint_every_steps": 1})
    interrupt_once(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        work(alone(project))
    resumed = run_stage(project)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming train: step 4 of 10" in resumed.stderr
    single = replace(make_job(project, start), work=project / "single")
    assert losses(history(project)) == pytest.approx(losses(run_training(single).history), abs=1e-4)


def test_a_worker_s_error_is_the_stage_s_error(project: Path, start: Manifest) -> None:
    rows = make_rows(start, 22)
    rows["aligned"][9]["chosen_weights"][0] = float("nan")
    write_split(project / "data", "train", rows)
    failed = run_stage(project)
    assert failed.returncode == 1
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith("train: ")
    assert "chosen_weights of pair pair-0-009" in last
    assert not (project / "models" / "policy").exists()
    assert not list(project.glob(".work/train/*/lock.json"))


def alone(project: Path) -> Stage:
    """The stage in this process."""
    return Stage("train", project, RuntimeParams(device="cpu", threads=1, micro_batch_tokens=48))


def test_what_dvc_deleted_is_published_again_without_training(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work(alone(project))
    outs = [project / "models" / "policy", project / "reports" / "train"]
    assert not (work_of(project)[0] / "checkpoints").exists()
    before = [tree_digest([outs[0]]), (outs[1] / "plots" / "metrics" / "train" / "loss.tsv").read_text()]
    for out in outs:
        shutil.rmtree(out)
    monkeypatch.setattr(Learner, "step", lambda *_: pytest.fail("trained again"))
    work(alone(project))
    assert [tree_digest([outs[0]]), (outs[1] / "plots" / "metrics" / "train" / "loss.tsv").read_text()] == before


def test_other_params_start_anew_in_their_own_folder(project: Path) -> None:
    work(alone(project))
    write_params(project, {**PARAMS, "beta": 0.25})
    work(alone(project))
    assert len(list((project / ".work" / "train").glob("*/run.json"))) == 2


def test_a_second_run_is_refused_while_one_works(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.train.run_training", lambda job: work(alone(project)))
    with pytest.raises(LockError, match=rf"lock\.json: process {os.getpid()} on"):
        work(alone(project))

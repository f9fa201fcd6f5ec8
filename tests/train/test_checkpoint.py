"""Checkpoints: whole or absent, pruned, refused when they are another run's; a full disk is named."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint import FileSystemReader

from pipeline.errors import CheckpointError
from pipeline.train.checkpoint import Best, Checkpoints, TrainState, differences
from pipeline.train.fsdp import process_group

DEPENDS = {"params": {"beta": 0.1}, "inputs": {"tokens": "a"}, "code": "c"}


@pytest.fixture(autouse=True)
def _group() -> Iterator[None]:
    with process_group(torch.device("cpu")):
        yield


def trained(steps: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    train(model, optimizer, steps)
    return model, optimizer


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        model(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def state(step: int, best: Best | None = None) -> TrainState:
    return TrainState(step, 1, step * 4, best, [{"step": float(n), "train/loss": 0.1 / (n + 1)} for n in range(step)])


def test_model_optimizer_and_state_come_back_exactly(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, DEPENDS)
    model, optimizer = trained(3)
    checkpoints.save(model, optimizer, state(3, Best(2, 0.25)))
    train(model, optimizer, 2)

    other, other_optimizer = trained(0)
    assert checkpoints.read_state(3) == state(3, Best(2, 0.25))
    checkpoints.load(3, other, other_optimizer)
    train(other, other_optimizer, 2)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def test_the_newest_two_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, DEPENDS)
    for step in range(1, 7):
        checkpoints.save(*trained(0), state(step, Best(2, 0.5) if step >= 2 else None))
    assert checkpoints.steps() == [2, 5, 6]


def test_as_many_as_wanted_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, DEPENDS, keep=1)
    for step in range(1, 4):
        checkpoints.save(*trained(0), state(step, Best(1, 0.5)))
    assert checkpoints.steps() == [1, 3]


def test_frozen_weights_are_not_saved_and_stay_as_they_are(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, DEPENDS)
    model, optimizer = trained(3)
    model[0].requires_grad_(False)
    model.append(model[0])  # a second name of the same weights
    checkpoints.save(model, optimizer, state(3))
    names = FileSystemReader(tmp_path / "step-00000003").read_metadata().state_dict_metadata
    assert {name for name in names if name.startswith("model.")} == {"model.1.weight", "model.1.bias"}

    other, other_optimizer = trained(0)
    other[0].requires_grad_(False)
    other.append(other[0])
    before = other[0].weight.clone()
    checkpoints.load(3, other, other_optimizer)
    assert torch.equal(other[0].weight, before)
    assert torch.equal(other[1].weight, model[1].weight)
    other[0].requires_grad_(True)
    with pytest.raises(CheckpointError, match=r"step-00000003: not readable"):
        checkpoints.load_model(3, other)  # a weight that is trained here and is not there


@pytest.mark.parametrize("moment", ["before the weights", "before the state", "before the name"])
def test_an_unfinished_checkpoint_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    checkpoints = Checkpoints(tmp_path, DEPENDS)
    checkpoints.save(*trained(1), state(1))

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    name = {
        "before the weights": "pipeline.train.checkpoint.dcp.save",
        "before the state": "pipeline.train.checkpoint.write_json",
        "before the name": "pipeline.train.checkpoint.sync_folder",
    }[moment]
    with monkeypatch.context() as patch:
        patch.setattr(name, die)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(*trained(2), state(2))
    assert checkpoints.steps() == [1]
    checkpoints.save(*trained(2), state(2))
    assert sorted(item.name for item in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


def test_another_run_s_checkpoint_is_refused_by_what_differs(tmp_path: Path) -> None:
    Checkpoints(tmp_path, DEPENDS).save(*trained(1), state(1))
    other = {**DEPENDS, "params": {"beta": 0.2, "seed": 1}}
    with pytest.raises(CheckpointError, match=r"params\.beta: 0\.1 there, 0\.2 here; params\.seed: null there, 1 here"):
        Checkpoints(tmp_path, other).read_state(1)


def test_differences_of_long_values_are_shortened() -> None:
    assert differences({"code": "a" * 64}, {"code": "b" * 64}) == [
        'code: "aaaaaaaaaaa…aaa" there, "bbbbbbbbbbb…bbb" here'
    ]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"state": {"best": null, "stride": 1}, "depends": {}}'])
def test_a_torn_state_is_named(tmp_path: Path, content: str) -> None:
    Checkpoints(tmp_path, DEPENDS).save(*trained(1), state(1))
    (tmp_path / "step-00000001" / "state.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"step-00000001/state\.json: not readable.*remove"):
        Checkpoints(tmp_path, DEPENDS).read_state(1)


def test_torn_weights_are_named(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, DEPENDS)
    checkpoints.save(*trained(1), state(1))
    [weights] = (tmp_path / "step-00000001").glob("*.distcp")
    os.truncate(weights, 100)
    with pytest.raises(CheckpointError, match=r"step-00000001: not readable"):
        checkpoints.load(1, *trained(0))


def test_a_full_disk_is_named_and_earlier_checkpoints_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path, DEPENDS)
    checkpoints.save(*trained(1), state(1))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match=r"the disk is full \(\d+ MiB free\); the earlier ones are whole"):
            checkpoints.save(*trained(2), state(2))
    assert checkpoints.steps() == [1]
    assert json.loads((tmp_path / "step-00000001" / "state.json").read_text())["state"]["step"] == 1

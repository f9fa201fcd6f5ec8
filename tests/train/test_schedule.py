"""The learning rate against transformers' schedule, and that of TDPO's code."""

from typing import Any

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup

from pipeline.config.train import TrainParams
from pipeline.train.schedule import learning_rate, total_steps


def check(steps: int, params: TrainParams, optimizer: torch.optim.Optimizer, schedule: Any) -> None:
    for step in range(steps):
        assert learning_rate(step, steps, params) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize(("steps", "ratio"), [(33, 0.1), (1, 0.1), (1, 0.0), (10, 0.0), (7, 0.5), (5, 1.0)])
def test_equals_transformers(steps: int, ratio: float) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=3e-4)
    warmup = -int(-steps * ratio // 1)  # as TrainingArguments.get_warmup_steps: the ceiling
    params = TrainParams(learning_rate=3e-4, warmup_ratio=ratio)
    check(steps, params, optimizer, get_cosine_schedule_with_warmup(optimizer, warmup, steps))


@pytest.mark.parametrize(("steps", "warmup"), [(33, 8), (10, 0), (5, 150)])
def test_a_number_of_warmup_steps_equals_transformers(steps: int, warmup: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=3e-4)
    params = TrainParams(learning_rate=3e-4, warmup_ratio=0.5, warmup_steps=warmup)
    check(steps, params, optimizer, get_cosine_schedule_with_warmup(optimizer, warmup, steps))


@pytest.mark.parametrize(("steps", "warmup"), [(200, 150), (10, 0), (5, 150)])
def test_constant_after_a_warmup_of_its_own(steps: int, warmup: int) -> None:
    """As torch's LambdaLR makes it of the factor in eric-mitchell's DPO code, which TDPO and its successors kept."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=3e-4)
    params = TrainParams(learning_rate=3e-4, schedule="constant", warmup_steps=warmup)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / (warmup + 1)))
    check(steps, params, optimizer, schedule)


def test_the_incomplete_last_batch_of_an_epoch_is_dropped() -> None:
    assert total_steps(61_135, 32, 1, None) == 1910
    assert total_steps(22, 4, 3, None) == 15
    assert total_steps(22, 4, 3, 7) == 7
    assert total_steps(22, 4, 3, 70) == 15

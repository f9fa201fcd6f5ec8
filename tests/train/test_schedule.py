"""The learning rate against transformers' schedule."""

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup

from pipeline.train.schedule import learning_rate, total_steps


@pytest.mark.parametrize(("steps", "ratio"), [(33, 0.1), (1, 0.1), (1, 0.0), (10, 0.0), (7, 0.5), (5, 1.0)])
def test_equals_transformers(steps: int, ratio: float) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=3e-4)
    warmup = -int(-steps * ratio // 1)  # as TrainingArguments.get_warmup_steps: the ceiling
    schedule = get_cosine_schedule_with_warmup(optimizer, warmup, steps)
    for step in range(steps):
        assert learning_rate(step, steps, ratio, 3e-4) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        schedule.step()


def test_the_incomplete_last_batch_of_an_epoch_is_dropped() -> None:
    assert total_steps(61_135, 32, 1, None) == 1910
    assert total_steps(22, 4, 3, None) == 15
    assert total_steps(22, 4, 3, 7) == 7
    assert total_steps(22, 4, 3, 70) == 15

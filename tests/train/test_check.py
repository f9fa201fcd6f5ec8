"""What stops a run."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import ModelError, NonFiniteError
from pipeline.objectives.response import PairLosses
from pipeline.train.batch import MicroBatch, collate
from pipeline.train.check import check_gradient, check_losses, check_reference
from pipeline.train.pairs import TrainedPair, TrainedResponse


def batch(**options: Any) -> MicroBatch:
    def response(length: int) -> TrainedResponse:
        logps = -np.arange(1, length + 1, dtype=np.float32)
        return TrainedResponse(np.arange(length), np.ones(length, np.float32), logps, float(length))

    pairs = [TrainedPair(name, np.zeros(2, np.int64), response(3), response(4)) for name in ("a", "b")]
    return collate(pairs, torch.device("cpu"), **options)


@pytest.mark.parametrize(("row", "pair", "side"), [(0, "a", "chosen"), (1, "b", "chosen"), (3, "b", "rejected")])
def test_the_worst_pair_is_named(row: int, pair: str, side: str) -> None:
    made = batch()
    logps = made.ref_logps.clone()
    logps[:, 3] += 0.5
    logps[row, 4] -= 2.0
    with pytest.raises(ModelError, match=rf"pair {pair}: .* a {side} token differs by 2 .* \(1\)"):
        check_reference(logps, made, 1.0)
    check_reference(logps, made, 2.5)


def test_what_is_not_a_response_token_is_not_compared() -> None:
    made = batch()
    check_reference(torch.where(made.response_mask, made.ref_logps, 99.0), made, 1e-4)


def test_a_difference_that_is_not_a_number_stops() -> None:
    made = batch()
    logps = made.ref_logps.clone()
    logps[2, 2] = float("nan")
    with pytest.raises(ModelError, match="pair a"):
        check_reference(logps, made, 1.0)


def test_fillers_are_not_compared() -> None:
    made = batch(pair_weight=0.0)
    check_reference(made.ref_logps + 5.0, made, 1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["losses", "chosen_rewards", "rejected_rewards"])
def test_losses_and_rewards_name_their_pairs(name: str, value: float) -> None:
    good = PairLosses(*torch.rand(3, 4))
    check_losses(good, ["a", "b", "c", "d"], 7)
    broken = replace(good, **{name: torch.tensor([0.1, value, 0.2, value])})
    with pytest.raises(NonFiniteError, match=r"step 7: loss or rewards are not finite for pairs b, d\. The last"):
        check_losses(broken, ["a", "b", "c", "d"], 7)


def test_a_gradient_names_some_of_many_pairs() -> None:
    check_gradient(3.0, ["a"], 0)
    with pytest.raises(NonFiniteError, match=r"pairs p0, .*, p9 and 22 more\."):
        check_gradient(float("nan"), [f"p{index}" for index in range(32)], 0)

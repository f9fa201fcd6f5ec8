"""What stops a run."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import ModelError, NonFiniteError
from pipeline.objectives.response import PairLosses
from pipeline.train.batch import MicroBatch, collate
from pipeline.train.check import check_figures, check_gradient, check_reference
from pipeline.train.figures import Figures
from pipeline.train.fsdp import process_group
from pipeline.train.pairs import TrainedPair, TrainedResponse


def batch(**options: Any) -> MicroBatch:
    def response(length: int) -> TrainedResponse:
        logps = -np.arange(1, length + 1, dtype=np.float32)
        return TrainedResponse(np.arange(length), np.ones(length, np.float32), logps, float(length))

    pairs = [TrainedPair(name, np.zeros(2, np.int64), response(3), response(4)) for name in ("a", "b")]
    return collate(pairs, True, torch.device("cpu"), **options)


def cached(made: MicroBatch) -> torch.Tensor:
    """The reference's log-probs of the row's tokens: of three and four tokens of `a`, then of `b`."""
    return made.ref_logps[made.mask].clone()


@pytest.mark.parametrize(
    ("token", "pair", "side"), [(0, "a", "chosen"), (9, "b", "chosen"), (3, "a", "rejected"), (13, "b", "rejected")]
)
def test_the_worst_pair_is_named(token: int, pair: str, side: str) -> None:
    made = batch()
    logps = cached(made)
    logps[1::4] += 0.5
    logps[token] = made.ref_logps[made.mask][token] - 2.0
    with pytest.raises(ModelError, match=rf"pair {pair}: .* a {side} token differs by 2 .* \(1\)"):
        check_reference(made.judged(logps), made, 1.0)
    check_reference(made.judged(logps), made, 2.5)


def test_a_difference_that_is_not_a_number_stops() -> None:
    made = batch()
    logps = cached(made)
    logps[8] = float("nan")
    with pytest.raises(ModelError, match="pair b"):
        check_reference(made.judged(logps), made, 1.0)


def test_fillers_are_not_compared() -> None:
    made = batch(pair_weight=0.0)
    check_reference(made.judged(cached(made) + 5.0), made, 1e-4)


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of this process."""
    with process_group(torch.device("cpu")):
        yield


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["losses", "chosen_rewards", "rejected_rewards"])
@pytest.mark.usefixtures("alone")
def test_losses_and_rewards_name_their_pairs(name: str, value: float) -> None:
    made = batch()
    judged = made.judged(cached(made))
    good = PairLosses(*torch.rand(3, 2))
    figures = Figures(torch.device("cpu"))
    assert figures.add(good, judged, made.pair_weights).tolist() == [True, True]
    check_figures(figures.means(), [], 7)
    finite = figures.add(replace(good, **{name: torch.tensor([0.1, value])}), judged, made.pair_weights)
    assert finite.tolist() == [True, False]
    with pytest.raises(NonFiniteError, match=r"step 7: loss or rewards are not finite for pair b\. The last"):
        check_figures(figures.means(), ["b"], 7)


@pytest.mark.usefixtures("alone")
def test_a_gradient_names_some_of_many_pairs() -> None:
    check_gradient(3.0, ["a"], 0)
    with pytest.raises(NonFiniteError, match=r"pairs p0, .*, p9 and 22 more\."):
        check_gradient(float("nan"), [f"p{index}" for index in range(32)], 0)

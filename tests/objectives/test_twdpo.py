"""Eq. 5 and Eq. 15: the gradient of one token, and the hand-computed case."""

import pytest
import torch

from pipeline.config.objective import NoSettings
from pipeline.objectives.registry import Loss
from pipeline.objectives.response import Pairs, Response, weighted_mean
from pipeline.objectives.twdpo import twdpo, twdpo_length_normalized
from tests.objectives.samples import make_pairs, tensors

NONE = NoSettings()
BOTH = pytest.mark.parametrize("loss", [twdpo, twdpo_length_normalized])


@BOTH
def test_gradient_of_a_token_is_beta_length_weight_and_one_outer_factor(loss: Loss) -> None:
    pairs = tensors(make_pairs("sum1"))
    made = loss(pairs, 0.3, NONE)
    made.losses.sum().backward()
    outer = torch.sigmoid(made.rejected_rewards - made.chosen_rewards).detach()
    for sign, side in ((-1, pairs.chosen), (1, pairs.rejected)):
        lengths = side.lengths if loss is twdpo else torch.ones_like(side.lengths)
        expected = sign * (outer * 0.3 * lengths)[:, None] * side.weights.nan_to_num() * side.mask
        assert side.logps.grad is not None
        assert torch.allclose(side.logps.grad, expected, atol=1e-12)


@pytest.mark.parametrize(("loss", "margin"), [(twdpo, 2.0 * 4 * 0.25 + 2.0 * 3 * 0.5), (twdpo_length_normalized, 1.5)])
def test_by_hand(loss: Loss, margin: float) -> None:
    """r_w = (1, 0), a_w = (1/4, 3/4), |y_w| = 4; r_l = (-1/2, -1/2), a_l = (1/2, 1/2), |y_l| = 3; beta 2."""
    chosen = Response(
        logps=torch.tensor([[-1.0, -1.0]]),
        mask=torch.tensor([[True, True]]),
        weights=torch.tensor([[0.25, 0.75]]),
        lengths=torch.tensor([4.0]),
        ref_logps=torch.tensor([[-2.0, -1.0]]),
    )
    rejected = Response(
        logps=torch.tensor([[-1.5, -2.5]]),
        mask=torch.tensor([[True, True]]),
        weights=torch.tensor([[0.5, 0.5]]),
        lengths=torch.tensor([3.0]),
        ref_logps=torch.tensor([[-1.0, -2.0]]),
    )
    made = loss(Pairs(chosen, rejected), 2.0, NONE)
    assert (made.chosen_rewards - made.rejected_rewards).item() == pytest.approx(margin)
    assert made.losses.item() == pytest.approx(torch.nn.functional.softplus(torch.tensor(-margin)).item())


def test_a_response_of_no_weight_has_a_mean_of_0() -> None:
    pairs = tensors(make_pairs("ones"))
    side = pairs.chosen
    nothing = Response(side.logps, side.mask, torch.zeros_like(side.weights), side.lengths)
    assert weighted_mean(nothing, side.logps).tolist() == [0.0] * 6

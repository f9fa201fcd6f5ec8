"""Eq. 5 and Eq. 15 against numpy float64, and the invariants of weighted preference losses."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.objectives.response import PairLosses, Response, summed_log_ratios
from pipeline.objectives.twdpo import twdpo, twdpo_length_normalized

Loss = Callable[[Response, Response, float], PairLosses]
BOTH = pytest.mark.parametrize("loss", [twdpo, twdpo_length_normalized])


def response(seed: int, pairs: int = 6, tokens: int = 9, uniform: bool = False) -> Response:
    """Random log-probs, weights that sum to 1, masks with holes before and after the response."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, tokens - 1, pairs)
    begins = np.array([random.integers(0, tokens - length) for length in lengths])
    places = np.arange(tokens)[None]
    mask = (places >= begins[:, None]) & (places < (begins + lengths)[:, None])
    weights = np.where(mask, 1.0 if uniform else random.exponential(size=mask.shape), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)

    def tensor(values: np.ndarray) -> Tensor:
        return torch.tensor(values, dtype=torch.float32)

    return Response(
        logps=tensor(-random.exponential(2.0, mask.shape)).requires_grad_(),
        mask=torch.tensor(mask),
        weights=tensor(weights),
        lengths=tensor(lengths),
        ref_logps=tensor(-random.exponential(2.0, mask.shape)),
    )


def reference_reward(response: Response, beta: float, times_length: bool) -> np.ndarray:
    """beta |y| sum_t a_t r_t, written down token by token in float64."""
    rewards = []
    for pair in range(len(response.mask)):
        total = 0.0
        for token in range(response.mask.shape[1]):
            if response.mask[pair, token]:
                ratio = response.logps[pair, token].item() - response.ref_logps[pair, token].item()
                total += response.weights[pair, token].item() * ratio
        rewards.append(beta * total * (response.lengths[pair].item() if times_length else 1.0))
    return np.array(rewards)


@pytest.mark.parametrize(("loss", "times_length"), [(twdpo, True), (twdpo_length_normalized, False)])
@pytest.mark.parametrize("beta", [0.005, 0.1, 2.0])
def test_equals_float64_written_out(loss: Loss, times_length: bool, beta: float) -> None:
    chosen, rejected = response(1), response(2)
    made = loss(chosen, rejected, beta)
    rewards = [reference_reward(side, beta, times_length) for side in (chosen, rejected)]
    assert made.chosen_rewards.detach().numpy() == pytest.approx(rewards[0], abs=1e-5)
    assert made.rejected_rewards.detach().numpy() == pytest.approx(rewards[1], abs=1e-5)
    expected = np.log1p(np.exp(-(rewards[0] - rewards[1])))
    assert made.losses.detach().numpy() == pytest.approx(expected, abs=1e-5)


@BOTH
def test_gradient_of_a_token_is_beta_length_weight_and_one_outer_factor(loss: Loss) -> None:
    chosen, rejected = response(1), response(2)
    made = loss(chosen, rejected, 0.3)
    made.losses.sum().backward()
    lengths = chosen.lengths if loss is twdpo else torch.ones_like(chosen.lengths)
    outer = torch.sigmoid(made.rejected_rewards - made.chosen_rewards).detach()
    expected = -(outer * 0.3 * lengths)[:, None] * chosen.weights * chosen.mask
    assert torch.allclose(chosen.logps.grad, expected, atol=1e-6)


@BOTH
def test_policy_equal_to_reference_gives_log_two(loss: Loss) -> None:
    chosen, rejected = (replace(response(seed), logps=response(seed).ref_logps) for seed in (1, 2))
    made = loss(chosen, rejected, 0.7)
    assert made.losses.tolist() == pytest.approx([np.log(2)] * 6)
    assert made.chosen_rewards.tolist() == [0.0] * 6


def test_uniform_weights_are_dpo() -> None:
    chosen, rejected = response(1, uniform=True), response(2, uniform=True)
    margin = summed_log_ratios(chosen) - summed_log_ratios(rejected)
    expected = -torch.nn.functional.logsigmoid(0.1 * margin)
    assert torch.allclose(twdpo(chosen, rejected, 0.1).losses, expected, atol=1e-6)


@BOTH
def test_scaling_all_weights_is_scaling_beta(loss: Loss) -> None:
    chosen, rejected = response(1), response(2)
    scaled = [replace(side, weights=side.weights * 3.0) for side in (chosen, rejected)]
    assert torch.allclose(loss(*scaled, 0.1).losses, loss(chosen, rejected, 0.3).losses, atol=1e-6)


@BOTH
def test_nothing_outside_the_mask_matters_even_if_it_is_not_a_number(loss: Loss) -> None:
    chosen, rejected = response(1), response(2)
    expected = loss(chosen, rejected, 0.5).losses
    noise = torch.full_like(chosen.weights, float("nan"))
    disturbed = replace(
        chosen,
        weights=torch.where(chosen.mask, chosen.weights, noise),
        ref_logps=torch.where(chosen.mask, chosen.ref_logps, noise),
    )
    made = loss(disturbed, rejected, 0.5).losses
    assert torch.equal(made, expected)
    made.sum().backward()
    assert torch.isfinite(chosen.logps.grad).all()


@BOTH
def test_weights_lengths_and_reference_carry_no_gradient(loss: Loss) -> None:
    chosen, rejected = response(1), response(2)
    constants = [chosen.weights, chosen.ref_logps, chosen.lengths]
    for tensor in constants:
        tensor.requires_grad_()
    loss(chosen, rejected, 0.5).losses.sum().backward()
    assert [tensor.grad for tensor in constants] == [None, None, None]


def test_log_ratios_without_a_reference_are_refused() -> None:
    with pytest.raises(ValueError, match="reference"):
        twdpo(replace(response(1), ref_logps=None), response(2), 0.1)

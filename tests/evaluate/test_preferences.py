"""Implicit rewards against loops over tokens, against the training objective, and ties."""

import math

import numpy as np
import pytest
import torch

from pipeline.config.objective import NoSettings
from pipeline.errors import NonFiniteError
from pipeline.evaluate.preferences import ScoredResponse, pair_numbers
from pipeline.objectives.response import Pairs, Response
from pipeline.objectives.twdpo import twdpo, twdpo_length_normalized


def response(seed: int, tokens: int, **changes: object) -> ScoredResponse:
    random = np.random.default_rng(seed)
    weights = random.random(tokens).astype(np.float32)
    made = {
        "logps": -random.exponential(2.0, tokens).astype(np.float32),
        "ref_logps": -random.exponential(2.0, tokens).astype(np.float32),
        "weights": weights / weights.sum(),
        "length": tokens + 0.5,
    }
    return ScoredResponse(**{**made, **changes})  # type: ignore[arg-type]


def numbers(chosen: ScoredResponse, rejected: ScoredResponse, times_length: bool = True) -> dict[str, float]:
    return pair_numbers(chosen, rejected, 0.1, times_length=times_length, pair_id="p0")


def test_equals_loops_over_tokens_in_double_precision() -> None:
    chosen, rejected = response(1, 9), response(2, 4)
    expected: dict[str, float] = {}
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        weighted = plain = policy = start = 0.0
        for logp, ref, weight in zip(side.logps, side.ref_logps, side.weights, strict=True):  # type: ignore[call-overload]
            weighted += float(weight) * (float(logp) - float(ref))
            plain += float(logp) - float(ref)
            policy, start = policy + float(logp), start + float(ref)
        tokens = len(side.logps)  # type: ignore[arg-type]
        expected[f"weighted_{name}_reward"] = 0.1 * side.length * weighted
        expected[f"plain_{name}_reward"] = 0.1 * plain
        expected[f"{name}_shift"] = plain
        expected[f"{name}_shift_per_token"] = plain / tokens
        expected[f"policy_{name}"], expected[f"start_{name}"] = policy / tokens, start / tokens
    for kind in ("weighted", "plain"):
        margin = expected[f"{kind}_chosen_reward"] - expected[f"{kind}_rejected_reward"]
        expected[f"{kind}_margin"] = margin
        expected[f"{kind}_accuracy"] = 1.0 if margin > 0 else 0.0
        expected[f"{kind}_loss"] = math.log(1 + math.exp(-margin))
    for model in ("policy", "start"):
        won, lost = expected.pop(f"{model}_chosen"), expected.pop(f"{model}_rejected")
        expected[f"{model}_likelihood_accuracy"] = 1.0 if won > lost else 0.0
    assert numbers(chosen, rejected) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("objective", "times_length"), [(twdpo, True), (twdpo_length_normalized, False)])
def test_weighted_rewards_and_loss_are_those_of_training(objective: object, times_length: bool) -> None:
    chosen, rejected = response(3, 6), response(4, 8)
    trained = objective(Pairs(_batch(chosen), _batch(rejected)), 0.1, NoSettings())  # type: ignore[operator]
    found = numbers(chosen, rejected, times_length)
    assert found["weighted_chosen_reward"] == pytest.approx(trained.chosen_rewards.item(), abs=1e-6)
    assert found["weighted_rejected_reward"] == pytest.approx(trained.rejected_rewards.item(), abs=1e-6)
    assert found["weighted_loss"] == pytest.approx(trained.losses.item(), abs=1e-6)


def test_uniform_weights_make_weighted_and_plain_rewards_equal() -> None:
    sides = [response(seed, 5, weights=np.full(5, 0.2), length=5.0) for seed in (5, 6)]
    found = numbers(*sides)
    assert found["weighted_margin"] == pytest.approx(found["plain_margin"], abs=1e-12)


def test_the_start_against_itself_ties_at_one_half_with_loss_log_2() -> None:
    ref_logps = np.array([-1.0, -2.0])
    same = response(7, 2, logps=ref_logps, ref_logps=ref_logps)
    found = numbers(same, same)
    assert {name: value for name, value in found.items() if name.endswith("accuracy")} == {
        "weighted_accuracy": 0.5,
        "plain_accuracy": 0.5,
        "start_likelihood_accuracy": 0.5,
        "policy_likelihood_accuracy": 0.5,
    }
    assert found["weighted_loss"] == found["plain_loss"] == pytest.approx(math.log(2))
    assert found["chosen_shift"] == found["plain_margin"] == 0.0


def test_a_loss_far_off_is_its_margin_and_not_infinite() -> None:
    won = response(8, 3, logps=np.full(3, -1e5), ref_logps=np.zeros(3))
    lost = response(9, 3, logps=np.zeros(3), ref_logps=np.zeros(3))
    assert numbers(won, lost)["plain_loss"] == pytest.approx(0.1 * 3e5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_names_the_pair(value: float) -> None:
    with pytest.raises(NonFiniteError, match="pair p0"):
        numbers(response(1, 3, logps=np.array([-1.0, value, -1.0])), response(2, 3))


def _batch(side: ScoredResponse) -> Response:
    logps, ref_logps, weights = (
        torch.tensor(np.asarray(values, np.float32))[None] for values in (side.logps, side.ref_logps, side.weights)
    )
    return Response(logps, torch.ones_like(logps, dtype=torch.bool), weights, torch.tensor([side.length]), ref_logps)

"""What the policy has learned of one pair, from per-token log-probs of policy and reference: numpy, float64.

r_t = log pi_theta(y_t | x, y_<t) - log pi_ref(y_t | x, y_<t); the reference is the start of training.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import NonFiniteError


@dataclass(frozen=True, kw_only=True)
class ScoredResponse:
    """One response of T trained tokens; every array is [T]."""

    logps: ArrayLike
    """log pi_theta of each token."""
    ref_logps: ArrayLike
    """log pi_ref of each token."""
    weights: ArrayLike
    """a_t of the paper on the trained tokens."""
    length: float
    """|y| of Eq. 5."""


def pair_numbers(
    chosen: ScoredResponse, rejected: ScoredResponse, beta: float, *, times_length: bool, pair_id: str
) -> dict[str, float]:
    """All numbers of one pair, by the names of `pipeline.evaluate.table.NUMBERS` that are not divergences.

    Weighted rewards are beta |y| sum_t a_t r_t (AttentionPO, Eq. 5), or without |y| where `times_length` is False
    (Eq. 15); plain ones beta sum_t r_t, as in DPO, over every trained token. The start has reward 0 for every response,
    so its accuracy is exactly one half. Raises NonFiniteError, naming the pair, for a NaN or infinite number.
    """
    sides = (chosen, rejected)
    rewards = {
        "weighted": [weighted_reward(response, beta, times_length) for response in sides],
        "plain": [plain_reward(response, beta) for response in sides],
    }
    numbers: dict[str, float] = {}
    for kind, (won, lost) in rewards.items():
        numbers |= {
            f"{kind}_accuracy": win(won, lost),
            f"{kind}_margin": won - lost,
            f"{kind}_loss": _minus_log_sigmoid(won - lost),
            f"{kind}_chosen_reward": won,
            f"{kind}_rejected_reward": lost,
        }
    for name, response in zip(("chosen", "rejected"), sides, strict=True):
        ratios = log_ratios(response)
        numbers |= {f"{name}_shift": float(ratios.sum()), f"{name}_shift_per_token": float(ratios.mean())}
    numbers["start_likelihood_accuracy"] = win(_mean(chosen.ref_logps), _mean(rejected.ref_logps))
    numbers["policy_likelihood_accuracy"] = win(_mean(chosen.logps), _mean(rejected.logps))
    check_finite(numbers, pair_id)
    return numbers


def log_ratios(response: ScoredResponse) -> NDArray[np.float64]:
    """r_t of every token, [T]."""
    return np.asarray(response.logps, np.float64) - np.asarray(response.ref_logps, np.float64)


def weighted_reward(response: ScoredResponse, beta: float, times_length: bool) -> float:
    """beta |y| sum_t a_t r_t, or without |y|."""
    weighted = float(np.asarray(response.weights, np.float64) @ log_ratios(response))
    return beta * weighted * (response.length if times_length else 1.0)


def plain_reward(response: ScoredResponse, beta: float) -> float:
    """beta sum_t r_t."""
    return beta * float(log_ratios(response).sum())


def win(chosen: float, rejected: float) -> float:
    """1 where the chosen response has the greater number, 0 where the rejected one has, 0.5 on an exact tie."""
    return 0.5 if chosen == rejected else float(chosen > rejected)


def check_finite(numbers: dict[str, float], pair_id: str) -> None:
    """Raises NonFiniteError that names the pair and the numbers."""
    if broken := [name for name, value in numbers.items() if not np.isfinite(value)]:
        raise NonFiniteError(
            f"evaluate: pair {pair_id}: {', '.join(broken)} not finite; the policy in models/policy or its start is"
            " broken for this pair: look at reports/train for the step where training diverged"
        )


def _minus_log_sigmoid(margin: float) -> float:
    with np.errstate(invalid="ignore"):  # a NaN is reported with its pair
        return float(np.logaddexp(0.0, -margin))


def _mean(logps: ArrayLike) -> float:
    return float(np.asarray(logps, np.float64).mean())

"""How good a judge is, from the verdict probabilities of both rounds.

Every function takes prob_a[2, N] and prob_b[2, N]: row 0 is round 1, where answer A is the chosen response, row 1 is
round 2, where answer A is the rejected one. An exact tie counts as half a verdict for each answer.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]


def judge_accuracy(prob_a: Floats, prob_b: Floats) -> float:
    """Share of verdicts, over both rounds, that name the chosen response. Random judge: 0.5."""
    return float(_for_chosen(prob_a, prob_b).mean())


def position_bias(prob_a: Floats, prob_b: Floats) -> float:
    """Share of verdicts "A" over both rounds, less one half: -0.5 (always B) to 0.5 (always A), 0 without bias."""
    return float(_for_a(prob_a, prob_b).mean() - 0.5)


def round_agreement(prob_a: Floats, prob_b: Floats) -> float:
    """Share of pairs whose two rounds name the same response; a pair with a tie in either round counts one half."""
    first, second = _for_chosen(prob_a, prob_b)
    return float((first * second + (1 - first) * (1 - second)).mean())


def tie_share(prob_a: Floats, prob_b: Floats) -> float:
    """Share of rounds in which both letters are exactly equally probable."""
    return float((prob_a == prob_b).mean())


def verdict_mass(prob_a: Floats, prob_b: Floats) -> float:
    """Mean probability of "A" or "B" together: how much of the judge's next token is a verdict at all (METHODS A13)."""
    return float((prob_a + prob_b).mean())


def verdict_metrics(prob_a: Floats, prob_b: Floats) -> dict[str, float]:
    """All of the above by name; nothing for an empty split. Raises ValueError for arrays of another shape."""
    if prob_a.shape != prob_b.shape or prob_a.ndim != 2 or prob_a.shape[0] != 2:
        raise ValueError(f"probabilities of two rounds are [2, N]; got {prob_a.shape} and {prob_b.shape}")
    if prob_a.shape[1] == 0:
        return {}
    return {
        "judge_accuracy": judge_accuracy(prob_a, prob_b),
        "position_bias": position_bias(prob_a, prob_b),
        "round_agreement": round_agreement(prob_a, prob_b),
        "tie_share": tie_share(prob_a, prob_b),
        "verdict_mass": verdict_mass(prob_a, prob_b),
    }


def _for_a(prob_a: Floats, prob_b: Floats) -> Floats:
    """1 where the verdict is A, 0 where it is B, 0.5 on a tie."""
    return np.where(prob_a == prob_b, 0.5, (prob_a > prob_b).astype(np.float64))


def _for_chosen(prob_a: Floats, prob_b: Floats) -> Floats:
    """1 where the verdict names the chosen response, 0 where the rejected, 0.5 on a tie: [2, N]."""
    for_a = _for_a(prob_a, prob_b)
    return np.stack([for_a[0], 1 - for_a[1]])

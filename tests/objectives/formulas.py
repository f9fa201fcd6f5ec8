"""Every objective as METHODS writes it, for one pair, in numpy float64: (loss, chosen reward, rejected reward)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tests.objectives.samples import FloatArray, Pair, Tokens

Made = tuple[float, float, float]
Formula = Callable[[Pair, float, Any], Made]


def log_sigma(x: float) -> float:
    return float(-np.logaddexp(0.0, -x))


def sigma(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def total(side: Tokens, values: FloatArray) -> float:
    return float(side.length * np.sum(side.weights * values))


def mean(side: Tokens, values: FloatArray) -> float:
    return float(np.sum(side.weights * values) / np.sum(side.weights))


def mean_over(divide_by: str, side: Tokens, values: FloatArray) -> float:
    return mean(side, values) if divide_by == "weights" else total(side, values) / len(values)


def nll(side: Tokens, form: str) -> float:
    return float(-np.sum(side.logps) if form == "sum" else -np.mean(side.logps))


def bradley_terry(chosen: float, rejected: float) -> Made:
    return -log_sigma(chosen - rejected), chosen, rejected


def dpo(pair: Pair, beta: float, settings: Any) -> Made:
    return bradley_terry(*(beta * float(np.sum(side.ratios)) for side in (pair.chosen, pair.rejected)))


def twdpo(pair: Pair, beta: float, settings: Any) -> Made:
    return bradley_terry(*(beta * total(side, side.ratios) for side in (pair.chosen, pair.rejected)))


def twdpo_length_normalized(pair: Pair, beta: float, settings: Any) -> Made:
    win, lose = pair.chosen, pair.rejected
    return bradley_terry(beta * float(win.weights @ win.ratios), beta * float(lose.weights @ lose.ratios))


def ipo(pair: Pair, beta: float, settings: Any) -> Made:
    h = partial(mean_over, settings.divide_by) if settings.form == "mean" else total
    win, lose = h(pair.chosen, pair.chosen.ratios), h(pair.rejected, pair.rejected.ratios)
    return (win - lose - 1 / (2 * beta)) ** 2, beta * win, beta * lose


def kto(pair: Pair, beta: float, settings: Any) -> Made:
    win, lose = total(pair.chosen, pair.chosen.ratios), total(pair.rejected, pair.rejected.ratios)
    desirable = settings.desirable_weight * (1 - sigma(beta * (win - pair.z)))
    undesirable = settings.undesirable_weight * (1 - sigma(beta * (pair.z - lose)))
    return 0.5 * (desirable + undesirable), beta * win, beta * lose


def rdpo(pair: Pair, beta: float, settings: Any) -> Made:
    win, lose = pair.chosen, pair.rejected
    return bradley_terry(
        beta * total(win, win.ratios) + settings.alpha * len(win.logps),
        beta * total(lose, lose.ratios) + settings.alpha * len(lose.logps),
    )


def cpo(pair: Pair, beta: float, settings: Any) -> Made:
    win, lose = beta * total(pair.chosen, pair.chosen.logps), beta * total(pair.rejected, pair.rejected.logps)
    return -log_sigma(win - lose) + settings.nll_weight * nll(pair.chosen, settings.nll), win, lose


def orpo(pair: Pair, beta: float, settings: Any) -> Made:
    win, lose = (mean_over(settings.divide_by, side, side.logps) for side in (pair.chosen, pair.rejected))
    odds = [np.exp(a) / (1 - np.exp(a)) for a in (win, lose)]
    likelihood = nll(pair.chosen, "mean") if settings.nll == "plain" else -win
    return likelihood - beta * log_sigma(float(np.log(odds[0] / odds[1]))), beta * win, beta * lose


def simpo(pair: Pair, beta: float, settings: Any) -> Made:
    win, lose = (beta * mean_over(settings.divide_by, side, side.logps) for side in (pair.chosen, pair.rejected))
    return -log_sigma(win - lose - settings.gamma), win, lose


def rrhf(pair: Pair, beta: float, settings: Any) -> Made:
    win, lose = mean(pair.chosen, pair.chosen.logps), mean(pair.rejected, pair.rejected.logps)
    return max(0.0, lose - win) + settings.nll_weight * nll(pair.chosen, settings.nll), win, lose


def slic(pair: Pair, beta: float, settings: Any) -> Made:
    win, lose = total(pair.chosen, pair.chosen.logps), total(pair.rejected, pair.rejected.logps)
    return max(0.0, settings.delta - win + lose) + settings.nll_weight * nll(pair.chosen, settings.nll), win, lose


def tpo(pair: Pair, beta: float, settings: Any) -> Made:
    s, gamma = (mean, settings.gamma) if settings.length_normalized else (total, 0.0)
    win, lose = beta * s(pair.chosen, pair.chosen.logps), beta * s(pair.rejected, pair.rejected.logps)
    return -log_sigma(win - lose - gamma) + settings.nll_weight * nll(pair.third, settings.nll), win, lose


def tdpo(pair: Pair, beta: float, alpha: float) -> Made:
    """TDPO2; TDPO1 is alpha 1, but for the gradient."""
    win, lose = pair.chosen, pair.rejected
    u = beta * (total(win, win.ratios) - total(lose, lose.ratios))
    kl_w, kl_l = float(np.sum(win.kls)), float(np.sum(lose.kls))
    rewards = beta * (total(win, win.ratios) + kl_w), beta * (total(lose, lose.ratios) + kl_l)
    return -log_sigma(u - beta * alpha * (kl_l - kl_w)), *rewards


def tisdpo(pair: Pair, beta: float, settings: Any) -> Made:
    win, lose = pair.chosen, pair.rejected
    w_win, w_lose = total(win, win.ratios), total(lose, lose.ratios)
    k_win, k_lose = total(win, win.kls), total(lose, lose.kls)
    rewards = beta * (w_win - settings.alpha * k_win), beta * (w_lose - settings.alpha * k_lose)
    return -log_sigma(beta * (w_win - w_lose - settings.alpha * (k_win - k_lose))), *rewards


def sepo(pair: Pair, beta: float, settings: Any) -> Made:
    return bradley_terry(
        *(settings.scale * float(np.mean(side.logps[side.weights == 1])) for side in (pair.chosen, pair.rejected))
    )


def cdpo_positionwise(pair: Pair, beta: float, settings: Any) -> Made:
    sides = [side.length * side.weights * side.ratios for side in (pair.chosen, pair.rejected)]
    width = max(len(side) for side in sides)
    win, lose = (np.concatenate([side, np.zeros(width - len(side))]) for side in sides)
    loss = float(np.mean([-log_sigma(beta * (win[t] - lose[t])) for t in range(width)]))
    return loss, beta * float(win.sum()), beta * float(lose.sum())


def triplet(pair: Pair, margin: float) -> float:
    d, b, c = pair.third.ratios, pair.chosen.ratios, pair.rejected.ratios
    near, far = (
        sum((x - y) ** 2 for x, y in zip(d, other, strict=False))  # zip stops where the shorter one ends
        for other in (b, c)
    )
    return max(0.0, float(near - far) + margin)


def tidpo(pair: Pair, beta: float, settings: Any) -> Made:
    base = twdpo_length_normalized if settings.length_normalized else twdpo
    loss, *rewards = base(pair, beta, settings)
    return loss + settings.gamma * triplet(pair, settings.margin), *rewards


def tidpo_tdpo2(pair: Pair, beta: float, settings: Any) -> Made:
    loss, *rewards = tdpo(pair, beta, settings.alpha)
    kl = 0.5 * float(np.sum(pair.chosen.kls) + np.sum(pair.rejected.kls))
    return loss + settings.gamma * triplet(pair, settings.margin) + settings.kl_coef * kl, *rewards


FORMULAS: dict[str, Formula] = {
    "dpo": dpo,
    "twdpo": twdpo,
    "twdpo_length_normalized": twdpo_length_normalized,
    "ipo": ipo,
    "kto": kto,
    "rdpo": rdpo,
    "cpo": cpo,
    "orpo": orpo,
    "simpo": simpo,
    "rrhf": rrhf,
    "slic": slic,
    "tpo": tpo,
    "tdpo1": lambda pair, beta, settings: tdpo(pair, beta, 1.0),
    "tdpo2": lambda pair, beta, settings: tdpo(pair, beta, settings.alpha),
    "tisdpo": tisdpo,
    "sepo": sepo,
    "cdpo_positionwise": cdpo_positionwise,
    "tidpo": tidpo,
    "tidpo_tdpo2": tidpo_tdpo2,
}

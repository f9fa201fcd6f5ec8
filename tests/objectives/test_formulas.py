"""Losses, rewards and gradients of every objective against its formula in numpy float64. Padding holds NaN."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.objectives.registry import OBJECTIVES
from tests.objectives.cases import CASES, IDS, kinds, settings_of
from tests.objectives.formulas import FORMULAS
from tests.objectives.samples import FloatArray, Pair, make_pairs, tensors

ALL = pytest.mark.parametrize(("name", "changes"), CASES, ids=IDS)
STEP = 1e-6
STOPPED = {("tdpo2", "chosen", "kls"), ("tidpo_tdpo2", "chosen", "kls")}
"""What the loss depends on through sg[K_w], which gives no gradient; that of `kl_coef` K_w / 2 is left."""


def test_every_objective_has_a_formula_and_a_case() -> None:
    assert set(FORMULAS) == set(OBJECTIVES) == {name for name, _ in CASES}


@ALL
@pytest.mark.parametrize("beta", [0.05, 0.6, 2.0])
def test_losses_and_rewards(name: str, changes: dict[str, Any], beta: float) -> None:
    settings = settings_of(name, changes)
    for kind in kinds(name, changes):
        pairs = make_pairs(kind)
        made = OBJECTIVES[name](tensors(pairs), beta, settings)
        expected = np.array([FORMULAS[name](pair, beta, settings) for pair in pairs]).T
        found = torch.stack([made.losses, made.chosen_rewards, made.rejected_rewards]).detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
        assert np.ptp(expected[0]) > 1e-3  # the pairs differ, so the comparison can fail


@ALL
def test_gradients(name: str, changes: dict[str, Any]) -> None:
    settings, beta = settings_of(name, changes), 0.6
    for kind in kinds(name, changes):
        pairs = make_pairs(kind)
        padded = tensors(pairs)
        OBJECTIVES[name](padded, beta, settings).losses.sum().backward()
        for side in ("chosen", "rejected", "third"):
            response = getattr(padded, side)
            for what in ("logps", "kls"):
                gradient = getattr(response, what).grad
                if gradient is None:
                    gradient = torch.zeros_like(response.logps)
                assert (gradient[~response.mask] == 0).all()
                expected = np.concatenate([_differences(name, pair, side, what, beta, settings) for pair in pairs])
                if (name, side, what) in STOPPED:
                    assert np.abs(expected).max() > 1e-3
                    expected = np.full_like(expected, getattr(settings, "kl_coef", 0.0) / 2)
                np.testing.assert_allclose(gradient[response.mask].numpy(), expected, atol=1e-7, err_msg=side + what)


def test_both_sides_of_every_hinge_are_met() -> None:
    pairs = [pair for kind in kinds("slic", {}) for pair in make_pairs(kind)]
    for name in ("rrhf", "slic"):
        losses = [FORMULAS[name](pair, 1.0, settings_of(name, {"nll_weight": 0.0}))[0] for pair in pairs]
        assert min(losses) == 0 < max(losses)
    only_triplet = settings_of("tidpo", {"gamma": 1.0, "margin": 0.9})
    without = settings_of("tidpo", {"gamma": 0.0})
    triplets = [FORMULAS["tidpo"](p, 0.6, only_triplet)[0] - FORMULAS["tidpo"](p, 0.6, without)[0] for p in pairs]
    assert min(triplets) == 0 < max(triplets)


def _differences(name: str, pair: Pair, side: str, what: str, beta: float, settings: Any) -> FloatArray:
    """Central differences of the formula by each token of one response."""
    tokens = getattr(pair, side)
    found = []
    for token in range(len(tokens.logps)):
        ends = []
        for step in (STEP, -STEP):
            moved = getattr(tokens, what).copy()
            moved[token] += step
            ends.append(FORMULAS[name](replace(pair, **{side: replace(tokens, **{what: moved})}), beta, settings)[0])
        found.append((ends[0] - ends[1]) / (2 * STEP))
    return np.array(found)

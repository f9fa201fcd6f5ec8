"""Log-probs at the ends of float32, a filler of no weight, and what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config.objective import SPECS, needs_of, weights_of
from pipeline.objectives.orpo import log_odds
from pipeline.objectives.registry import OBJECTIVES
from pipeline.objectives.response import Pairs, Response
from tests.objectives.cases import CASES, IDS, kinds, settings_of
from tests.objectives.formulas import FORMULAS
from tests.objectives.samples import Pair, Tokens, make_pairs, tensors

ALL = pytest.mark.parametrize(("name", "changes"), CASES, ids=IDS)


def finite_with_gradient(name: str, changes: dict[str, Any], pairs: Pairs) -> None:
    made = OBJECTIVES[name](pairs, 0.6, settings_of(name, changes))
    assert torch.isfinite(torch.stack([made.losses, made.chosen_rewards, made.rejected_rewards])).all()
    made.losses.sum().backward()
    for side in (pairs.chosen, pairs.rejected, pairs.third):
        assert side is not None
        gradient = side.logps.grad
        assert gradient is None or torch.isfinite(gradient).all()


@ALL
@pytest.mark.parametrize(("chosen", "rejected"), [(0.0, 0.0), (0.0, -1e4), (-1e4, 0.0), (-1e-8, -1e-9), (-1e4, -1e4)])
def test_finite_at_the_ends_of_probability(name: str, changes: dict[str, Any], chosen: float, rejected: float) -> None:
    def extreme(tokens: Tokens, logp: float) -> Tokens:
        return replace(tokens, logps=np.full(len(tokens.logps), logp))

    pairs = [
        Pair(extreme(pair.chosen, chosen), extreme(pair.rejected, rejected), extreme(pair.third, chosen))
        for pair in make_pairs("mask" if weights_of(name, settings_of(name, changes)) == "mask" else "uniform")
    ]
    finite_with_gradient(name, changes, tensors(pairs, torch.float32))


@ALL
def test_a_pair_of_no_weight_is_finite(name: str, changes: dict[str, Any]) -> None:
    """The trainer fills up micro-batches with a pair of one token and weight 0; its loss is multiplied by 0."""
    pairs = tensors(make_pairs("ones"), torch.float32)
    empty = replace(
        pairs,
        chosen=replace(pairs.chosen, weights=torch.zeros_like(pairs.chosen.weights)),
        rejected=replace(pairs.rejected, weights=torch.zeros_like(pairs.rejected.weights)),
    )
    finite_with_gradient(name, changes, empty)


@ALL
def test_float32_is_close_to_the_formula(name: str, changes: dict[str, Any]) -> None:
    pairs, settings = make_pairs(kinds(name, changes)[0]), settings_of(name, changes)
    made = OBJECTIVES[name](tensors(pairs, torch.float32), 0.6, settings)
    assert made.losses.dtype == torch.float32
    expected = [FORMULAS[name](pair, 0.6, settings)[0] for pair in pairs]
    assert made.losses.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_log_odds_keeps_its_digits_near_certainty() -> None:
    logps = torch.tensor([-1e-6, -1e-3, -0.5, -3.0, -30.0, -1e3])
    exact = logps.double().numpy()
    with np.errstate(divide="ignore"):
        expected = exact - np.log1p(-np.exp(exact))
    np.testing.assert_allclose(log_odds(logps).numpy(), expected, rtol=1e-6)


def test_a_certain_response_does_not_make_orpo_infinite() -> None:
    """As the largest probability below 1 would; TRL's formula gives inf - inf."""
    [certain] = log_odds(torch.zeros(1)).tolist()
    assert certain == pytest.approx(-np.log(2.0**-23), rel=1e-5)


@ALL
def test_a_missing_need_is_named(name: str, changes: dict[str, Any]) -> None:
    pairs = tensors(make_pairs("ones"))
    taken: dict[str, tuple[Pairs, str]] = {
        "ref_logps": (_without(pairs, "ref_logps"), "reference"),
        "ref_model": (_without(pairs, "kls"), "KL"),
        "kl_pairs": (replace(pairs, kl_baseline=None), "baseline"),
        "anchor": (replace(pairs, third=None), "anchor"),
        "gold": (replace(pairs, third=None), "gold"),
    }
    settings = settings_of(name, changes)
    needs = needs_of(name, settings)
    for need, (lacking, message) in taken.items():
        if need in needs:
            with pytest.raises(ValueError, match=message):
                OBJECTIVES[name](lacking, 0.1, settings)
    rest = pairs
    if "ref_logps" not in needs:
        rest = _without(rest, "ref_logps")
    if "ref_model" not in needs:
        rest = _without(rest, "kls")
    if "kl_pairs" not in needs:
        rest = replace(rest, kl_baseline=None)
    if not needs & {"anchor", "gold"}:
        rest = replace(rest, third=None)
    assert torch.isfinite(OBJECTIVES[name](rest, 0.1, settings).losses).all()  # and nothing else is needed


WITHOUT_BETA = {"rrhf", "slic", "sepo"}
"""Whose formulas in METHODS have none."""


@pytest.mark.parametrize("name", SPECS)
def test_beta_matters_where_the_formula_has_one(name: str) -> None:
    pairs = tensors(make_pairs("ones"))
    small, large = (OBJECTIVES[name](pairs, beta, settings_of(name, {})).losses for beta in (0.1, 0.9))
    assert torch.equal(small, large) == (name in WITHOUT_BETA)


def _without(pairs: Pairs, field: str) -> Pairs:
    def bare(side: Response | None) -> Response | None:
        return None if side is None else replace(side, **{field: None})

    return replace(pairs, chosen=bare(pairs.chosen), rejected=bare(pairs.rejected), third=bare(pairs.third))

"""METHODS, section 7, over all objectives: no. 1, 2, 3, 4, 9, 12; and what padding and even weights must not change."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.config.objective import SPECS, weights_of
from pipeline.config.weights import WeightsParams
from pipeline.objectives.registry import OBJECTIVES
from pipeline.objectives.response import Pairs
from pipeline.objectives.triplet import triplet
from pipeline.weights.trained.registry import weigh
from tests.objectives.cases import CASES, IDS, kinds, settings_of
from tests.objectives.samples import Tokens, at_reference, make_pairs, tensors
from tests.weights.trained.examples import tokens as scored_tokens

ALL = pytest.mark.parametrize(("name", "changes"), CASES, ids=IDS)
BETA = 0.6
SIDES = ("chosen", "rejected")
LOG_TWO = float(np.log(2))


def losses(name: str, changes: dict[str, Any], pairs: Pairs, beta: float = BETA) -> Tensor:
    return OBJECTIVES[name](pairs, beta, settings_of(name, changes)).losses


def at_start(name: str, settings: Any, count_difference: float) -> float:
    """The loss where the policy is the reference."""
    return {
        "ipo": 1 / (4 * BETA**2),
        "kto": (getattr(settings, "desirable_weight", 0) + getattr(settings, "undesirable_weight", 0)) / 4,
        "rdpo": float(np.log1p(np.exp(-getattr(settings, "alpha", 0) * count_difference))),
        "tidpo": LOG_TWO + getattr(settings, "gamma", 0) * getattr(settings, "margin", 0),
        "tidpo_tdpo2": LOG_TWO + getattr(settings, "gamma", 0) * getattr(settings, "margin", 0),
    }.get(name, LOG_TWO)


@pytest.mark.parametrize(
    ("name", "changes"), [case for case in CASES if "ref_logps" in SPECS[case[0]].needs], ids=lambda value: str(value)
)
def test_1_the_loss_at_the_start(name: str, changes: dict[str, Any]) -> None:
    for kind in kinds(name, changes):
        pairs = at_reference(make_pairs(kind))
        settings = settings_of(name, changes)
        expected = [at_start(name, settings, len(p.chosen.logps) - len(p.rejected.logps)) for p in pairs]
        made = OBJECTIVES[name](tensors(pairs), BETA, settings)
        assert made.losses.tolist() == pytest.approx(expected, abs=1e-12)
        if name != "rdpo":  # its reward has the length in it
            assert made.chosen_rewards.tolist() == made.rejected_rewards.tolist() == [0.0] * len(pairs)


def test_1_the_triplet_gives_no_gradient_at_the_start() -> None:
    pairs = tensors(at_reference(make_pairs("sum1")))
    assert pairs.third is not None
    made = triplet(pairs, 0.2)
    made.sum().backward()
    assert made.tolist() == [0.2] * 6
    for side in (pairs.chosen, pairs.rejected, pairs.third):
        assert side.logps.grad is not None
        assert (side.logps.grad == 0).all()


@pytest.mark.parametrize("kind", ["uniform", "ones"])
@pytest.mark.parametrize(
    ("name", "changes"),
    [("twdpo", {}), ("tdpo2", {"alpha": 0.0}), ("rdpo", {"alpha": 0.0}), ("tisdpo", {"alpha": 0.0})],
)
def test_2_equal_to_dpo(name: str, changes: dict[str, Any], kind: Any) -> None:
    """TwDPO of a_t = 1/|y|; TIS-DPO of w = 1, D2PO of gamma = 1 and cDPO of s = 0, which are TwDPO of weights 1."""
    pairs = make_pairs(kind)
    expected = losses("dpo", {}, tensors(pairs))
    assert losses(name, changes, tensors(pairs)).tolist() == pytest.approx(expected.tolist(), rel=1e-12)


@pytest.mark.parametrize(
    "weights",
    [
        {"source": "uniform"},
        {"source": "decay", "decay": {"gamma": 1.0}},
        {"source": "contrast", "contrast": {"transform": "binary", "top_percent": 100.0}},
        {"source": "critical"},
    ],
    ids=lambda weights: weights["source"],
)
def test_2_weights_as_they_are_made_are_those_of_dpo(weights: dict[str, Any]) -> None:
    """Of a gamma of 1, all tokens selected, no token critical: from source to loss, |y| with them."""
    params = WeightsParams(**weights)

    def weighed(side: Tokens, preferred: bool) -> Tokens:
        scores = np.zeros(len(side.logps)) if params.source == "critical" else side.refs
        made = weigh(params, scored_tokens(scores, preferred=preferred))
        return replace(side, weights=made.weights, length=made.length)

    pairs = make_pairs("raw")
    made = [replace(pair, chosen=weighed(pair.chosen, True), rejected=weighed(pair.rejected, False)) for pair in pairs]
    expected = losses("dpo", {}, tensors(pairs))
    assert losses("twdpo", {}, tensors(made)).tolist() == pytest.approx(expected.tolist(), rel=1e-12)
    assert losses("twdpo", {}, tensors(pairs)).tolist() != pytest.approx(expected.tolist(), rel=1e-2)


@pytest.mark.parametrize("kind", ["sum1", "raw"])
def test_2_tis_dpo_without_its_penalty_is_twdpo(kind: Any) -> None:
    """Losses, rewards and gradients, to the last bit, and without a KL."""
    bare, plain = tensors(make_pairs(kind)), tensors(make_pairs(kind))
    bare = replace(bare, chosen=replace(bare.chosen, kls=None), rejected=replace(bare.rejected, kls=None))
    made = OBJECTIVES["tisdpo"](bare, BETA, settings_of("tisdpo", {"alpha": 0.0}))
    expected = OBJECTIVES["twdpo"](plain, BETA, settings_of("twdpo", {}))
    for found, wanted in ((made.losses, expected.losses), (made.chosen_rewards, expected.chosen_rewards)):
        assert torch.equal(found, wanted)
    made.losses.sum().backward()
    expected.losses.sum().backward()
    assert bare.rejected.logps.grad is not None
    assert plain.rejected.logps.grad is not None
    assert torch.equal(bare.rejected.logps.grad, plain.rejected.logps.grad)


@pytest.mark.parametrize(
    ("name", "changes", "plain", "plain_changes"),
    [
        ("tidpo", {"length_normalized": True}, "twdpo_length_normalized", {}),
        ("tidpo", {"length_normalized": False}, "twdpo", {}),
        ("tidpo_tdpo2", {"alpha": 0.7}, "tdpo2", {"alpha": 0.7}),
    ],
)
def test_ti_dpo_without_its_triplet_needs_no_anchor(
    name: str, changes: dict[str, Any], plain: str, plain_changes: dict[str, Any]
) -> None:
    pairs = tensors(make_pairs("sum1"))
    expected = losses(plain, plain_changes, pairs)
    found = losses(name, {**changes, "gamma": 0.0}, replace(pairs, third=None))
    assert torch.equal(found, expected)


def test_kl_coef_adds_the_mean_of_both_sequence_kls() -> None:
    pairs = make_pairs("sum1")
    kls = torch.tensor([pair.chosen.kls.sum() + pair.rejected.kls.sum() for pair in pairs])
    without, zero, with_kl = (
        losses("tidpo_tdpo2", changes, tensors(pairs)) for changes in ({}, {"kl_coef": 0.0}, {"kl_coef": 0.4})
    )
    assert torch.equal(without, zero)
    assert (with_kl - without).tolist() == pytest.approx((0.2 * kls).tolist(), rel=1e-10)


def test_tis_dpo_punishes_a_chosen_response_that_drifts() -> None:
    """The sign of the penalty: more divergence on the chosen response is more loss, on the rejected one less."""
    pairs = tensors(make_pairs("sum1"))
    losses("tisdpo", {}, pairs).sum().backward()
    for sign, side in ((1, pairs.chosen), (-1, pairs.rejected)):
        assert side.kls is not None
        assert side.kls.grad is not None
        assert (sign * side.kls.grad[side.mask] > 0).all()


def test_3_sepo_of_all_tokens_is_simpo_of_beta_1_and_gamma_0() -> None:
    pairs = make_pairs("ones")
    expected = losses("simpo", {"gamma": 0.0}, tensors(pairs), beta=1.0)
    assert losses("sepo", {}, tensors(pairs), beta=7.0).tolist() == pytest.approx(expected.tolist(), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("twdpo", {}),
        ("twdpo_length_normalized", {}),
        ("rdpo", {}),
        ("cpo", {}),
        ("tisdpo", {"alpha": 0.7}),
        ("simpo", {"divide_by": "tokens"}),
        ("tidpo", {"length_normalized": True}),
        ("tidpo", {"length_normalized": False}),
    ],
)
def test_4_scaling_all_weights_is_scaling_beta(name: str, changes: dict[str, Any]) -> None:
    pairs = make_pairs("sum1")
    tripled = scaled(tensors(pairs), 3.0)
    expected = losses(name, changes, tensors(pairs), beta=0.6)
    assert losses(name, changes, tripled, beta=0.2).tolist() == pytest.approx(expected.tolist(), rel=1e-10)


@pytest.mark.parametrize("name", ["tdpo1", "tdpo2", "tidpo_tdpo2"])
def test_4_kl_sums_are_not_weighted(name: str) -> None:
    pairs = make_pairs("sum1")
    none = scaled(tensors(pairs), 0.0)
    made = losses(name, {"gamma": 0.0} if name == "tidpo_tdpo2" else {}, none)
    kl = torch.tensor([pair.rejected.kls.sum() - pair.chosen.kls.sum() for pair in pairs])
    expected = torch.nn.functional.softplus(BETA * kl * (1.0 if name == "tdpo1" else 0.5))
    assert made.tolist() == pytest.approx(expected.tolist(), rel=1e-10)


@pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if spec.weights == "nonnegative"])
def test_means_do_not_depend_on_the_scale_of_weights(name: str) -> None:
    changes = {"length_normalized": True} if name == "tpo" else {}
    assert weights_of(name, settings_of(name, changes)) == "nonnegative"
    pairs = make_pairs("sum1")
    expected = losses(name, changes, tensors(pairs))
    assert losses(name, changes, scaled(tensors(pairs), 3.0)).tolist() == pytest.approx(expected.tolist(), rel=1e-10)


@pytest.mark.parametrize("name", ["ipo", "orpo", "simpo"])
def test_a_sum_over_the_number_of_tokens_keeps_the_scale_of_weights(name: str) -> None:
    """D2PO's variants; weights that sum to the number of tokens make both means one."""
    pairs = [replace(pair, **{side: _of_mean_1(getattr(pair, side)) for side in SIDES}) for pair in make_pairs("sum1")]
    by_tokens, by_weights = ({"divide_by": each} for each in ("tokens", "weights"))
    expected = losses(name, by_weights, tensors(pairs)).tolist()
    assert losses(name, by_tokens, tensors(pairs)).tolist() == pytest.approx(expected, rel=1e-10)
    assert losses(name, by_tokens, scaled(tensors(pairs), 0.5)).tolist() != pytest.approx(expected, rel=1e-3)


def _of_mean_1(tokens: Tokens) -> Tokens:
    return replace(tokens, weights=tokens.weights * len(tokens.weights), length=1.0)


@pytest.mark.parametrize("name", ["tdpo2", "tidpo_tdpo2"])
def test_9_tdpo2_gives_no_gradient_through_the_chosen_kl(name: str) -> None:
    pairs = tensors(make_pairs("sum1"))
    losses(name, {}, pairs).sum().backward()
    assert pairs.chosen.kls is not None
    assert pairs.rejected.kls is not None
    assert pairs.chosen.kls.grad is None or (pairs.chosen.kls.grad == 0).all()
    assert pairs.rejected.kls.grad is not None
    assert (pairs.rejected.kls.grad[pairs.rejected.mask] != 0).all()


def test_9_tdpo1_gives_gradient_through_both_kls() -> None:
    pairs = tensors(make_pairs("sum1"))
    losses("tdpo1", {}, pairs).sum().backward()
    for side in (pairs.chosen, pairs.rejected):
        assert side.kls is not None
        assert side.kls.grad is not None
        assert (side.kls.grad[side.mask] != 0).all()


@ALL
def test_12_constants_carry_no_gradient(name: str, changes: dict[str, Any]) -> None:
    pairs = tensors(make_pairs(kinds(name, changes)[0]))
    assert pairs.third is not None
    assert pairs.kl_baseline is not None
    constants = [pairs.kl_baseline]
    for side in (pairs.chosen, pairs.rejected, pairs.third):
        assert side.ref_logps is not None
        constants += [side.weights, side.lengths, side.ref_logps]
    for tensor in constants:
        tensor.requires_grad_()
    losses(name, changes, pairs).sum().backward()
    assert [tensor.grad for tensor in constants] == [None] * 10
    assert pairs.chosen.logps.grad is not None


@ALL
def test_12_nothing_outside_the_responses_matters(name: str, changes: dict[str, Any]) -> None:
    pairs = make_pairs(kinds(name, changes)[0])
    expected = losses(name, changes, tensors(pairs, fill=0.0))
    assert torch.isfinite(expected).all()
    for fill in (-1e6, 3.0, float("inf"), float("nan")):
        assert torch.equal(losses(name, changes, tensors(pairs, fill=fill)), expected)


@ALL
def test_padding_and_neighbours_do_not_matter(name: str, changes: dict[str, Any]) -> None:
    pairs = make_pairs(kinds(name, changes)[0])
    expected = losses(name, changes, tensors(pairs)).tolist()
    wide = losses(name, changes, tensors(pairs, spare=(30, 0, 17)))
    alone = torch.cat([losses(name, changes, tensors([pair], spare=(0, 0, 0))) for pair in pairs])
    assert wide.tolist() == pytest.approx(expected, rel=1e-12)
    assert alone.tolist() == pytest.approx(expected, rel=1e-12)


@ALL
def test_even_weights_of_either_scale_are_the_plain_method(name: str, changes: dict[str, Any]) -> None:
    """1/T with |y| = T, and 1 with |y| = 1: both count every token once. Sums of sum-1 weights alone are means."""
    scale_free = name == "twdpo_length_normalized" or (name == "tidpo" and changes["length_normalized"])
    even = losses(name, changes, tensors(make_pairs("uniform")))
    ones = tensors(make_pairs("ones"))
    if scale_free:
        ones = divided_by_counts(ones)
    assert losses(name, changes, ones).tolist() == pytest.approx(even.tolist(), rel=1e-12)


def scaled(pairs: Pairs, factor: float) -> Pairs:
    """All weights of chosen and rejected times a factor."""
    chosen, rejected = (replace(side, weights=factor * side.weights) for side in (pairs.chosen, pairs.rejected))
    return replace(pairs, chosen=chosen, rejected=rejected)


def divided_by_counts(pairs: Pairs) -> Pairs:
    chosen, rejected = (
        replace(side, weights=side.weights / side.mask.sum(dim=-1, keepdim=True))
        for side in (pairs.chosen, pairs.rejected)
    )
    return replace(pairs, chosen=chosen, rejected=rejected)

"""Judge metrics against a count pair by pair."""

import numpy as np
import pytest

from pipeline.attention.metrics import (
    judge_accuracy,
    position_bias,
    round_agreement,
    tie_share,
    verdict_mass,
    verdict_metrics,
)


def probabilities(*pairs):
    """One pair a string of two verdicts, round 1 then 2: "A", "B", or "=" for a tie."""
    table = {"A": (0.6, 0.3), "B": (0.1, 0.7), "=": (0.2, 0.2)}
    cells = np.array([[table[letter] for letter in pair] for pair in pairs])
    return cells[:, :, 0].T, cells[:, :, 1].T


@pytest.mark.parametrize(
    ("pairs", "accuracy", "bias", "agreement"),
    [
        (["AB"], 1.0, 0.0, 1.0),  # chosen named twice
        (["BA"], 0.0, 0.0, 1.0),  # rejected named twice
        (["AA"], 0.5, 0.5, 0.0),  # always the first answer
        (["BB"], 0.5, -0.5, 0.0),  # always the second
        (["=="], 0.5, 0.0, 0.5),
        (["A="], 0.75, 0.25, 0.5),
        (["=B"], 0.75, -0.25, 0.5),
        (["AB", "AB", "BA", "AA"], 0.625, 0.125, 0.75),
    ],
)
def test_counts(pairs, accuracy, bias, agreement):
    prob_a, prob_b = probabilities(*pairs)
    assert judge_accuracy(prob_a, prob_b) == pytest.approx(accuracy)
    assert position_bias(prob_a, prob_b) == pytest.approx(bias)
    assert round_agreement(prob_a, prob_b) == pytest.approx(agreement)


def test_swapping_the_responses_mirrors_accuracy():
    """Renaming chosen and rejected exchanges the rounds: accuracy becomes its complement, bias and agreement stay."""
    rng = np.random.default_rng(0)
    prob_a, prob_b = rng.random((2, 2, 50))
    before = verdict_metrics(prob_a, prob_b)
    after = verdict_metrics(prob_a[::-1], prob_b[::-1])
    assert after["judge_accuracy"] == pytest.approx(1 - before["judge_accuracy"])
    assert after["position_bias"] == pytest.approx(before["position_bias"])
    assert after["round_agreement"] == pytest.approx(before["round_agreement"])


def test_ties_and_mass():
    prob_a, prob_b = probabilities("A=", "==")
    assert tie_share(prob_a, prob_b) == pytest.approx(0.75)
    assert verdict_mass(prob_a, prob_b) == pytest.approx((0.9 + 3 * 0.4) / 4)


def test_an_empty_split_has_no_metrics():
    assert verdict_metrics(np.empty((2, 0)), np.empty((2, 0))) == {}


def test_refuses_one_round():
    with pytest.raises(ValueError, match="two rounds"):
        verdict_metrics(np.zeros((1, 3)), np.zeros((1, 3)))

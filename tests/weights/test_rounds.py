"""Eq. 13 and the normalization of section 2.6, in both orders."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.weights.rounds import combine_rounds, normalized

ORDERS = ("normalize_then_average", "average_then_normalize")
score = st.floats(0, 1, width=32)
rounds = st.integers(1, 20).flatmap(
    lambda n: st.tuples(arrays(np.float64, n, elements=score), arrays(np.float64, n, elements=score))
)


def released_code(round_1, round_2):
    """`self_judging.py`: every round to sum 1, uniform where the sum is 0, then the mean, token by token."""
    weights = []
    for scores in (round_1, round_2):
        total = sum(scores)
        weights.append([s / total if total > 0 else 1 / len(scores) for s in scores])
    return [(w1 + w2) / 2 for w1, w2 in zip(*weights, strict=True)]


def paper(round_1, round_2):
    """Eq. 13, then a / sum(a)."""
    averaged = [s1 / 2 + s2 / 2 for s1, s2 in zip(round_1, round_2, strict=True)]
    total = sum(averaged)
    return [a / total if total > 0 else 1 / len(averaged) for a in averaged]


@settings(deadline=None)
@given(rounds)
def test_equals_the_released_code_and_the_paper(pair):
    np.testing.assert_allclose(combine_rounds(*pair, "normalize_then_average"), released_code(*pair), rtol=1e-12)
    np.testing.assert_allclose(combine_rounds(*pair, "average_then_normalize"), paper(*pair), rtol=1e-12)


@pytest.mark.parametrize("order", ORDERS)
@settings(deadline=None)
@given(pair=rounds)
def test_swapping_the_rounds_changes_no_bit(order, pair):
    round_1, round_2 = pair
    assert combine_rounds(round_1, round_2, order).tolist() == combine_rounds(round_2, round_1, order).tolist()


@pytest.mark.parametrize("order", ORDERS)
@settings(deadline=None)
@given(pair=rounds)
def test_weights_sum_to_one(order, pair):
    weights = combine_rounds(*pair, order)
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert (weights >= 0).all()


def test_the_orders_differ_where_one_round_saw_more_of_the_response():
    little, much = np.array([0.01, 0.0]), np.array([0.0, 0.09])
    np.testing.assert_allclose(combine_rounds(little, much, "normalize_then_average"), [0.5, 0.5])
    np.testing.assert_allclose(combine_rounds(little, much, "average_then_normalize"), [0.1, 0.9])


def test_a_response_without_attention_is_uniform():
    nothing, something = np.zeros(4), np.array([1.0, 0, 0, 3.0])
    np.testing.assert_allclose(normalized(nothing), [0.25] * 4)
    np.testing.assert_allclose(combine_rounds(nothing, something, "normalize_then_average"), [0.25, 0.125, 0.125, 0.5])
    np.testing.assert_allclose(combine_rounds(nothing, something, "average_then_normalize"), [0.25, 0, 0, 0.75])

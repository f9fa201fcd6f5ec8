"""Eq. 14 for any K and K', against the formula and the released code's loop."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.weights.sink import fix_sink

weight_lists = st.integers(1, 25).flatmap(lambda n: arrays(np.float64, n, elements=st.floats(0, 1, width=32)))
sinks = st.tuples(st.integers(0, 6), st.integers(1, 10))


@settings(deadline=None)
@given(weight_lists, sinks)
def test_equals_the_formula(scores, sink):
    sink_tokens, min_tokens = sink
    n = len(scores)
    assume(scores[sink_tokens:].sum() > 0)
    weights = scores / scores.sum()
    expected = list(weights)
    if n >= min_tokens and n > sink_tokens:
        rest = sum(weights[sink_tokens:])
        expected = [1 / n] * sink_tokens + [w * (1 - sink_tokens / n) / rest for w in weights[sink_tokens:]]
    np.testing.assert_allclose(fix_sink(weights, sink_tokens, min_tokens), expected, rtol=1e-9)


@settings(deadline=None)
@given(weight_lists)
def test_equals_the_released_code(scores):
    """`get_weights`: K = 1, K' = 5, whatever the weights sum to."""
    assume(scores[1:].sum() > 0)
    expected = scores.tolist()
    if len(expected) >= 5:
        total, rest = sum(expected), sum(expected[1:])
        expected[0] = total / len(expected)
        expected[1:] = [w * ((total - expected[0]) / rest) for w in expected[1:]]
    np.testing.assert_allclose(fix_sink(scores, 1, 5), expected, rtol=1e-9)


@settings(deadline=None)
@given(weight_lists, sinks)
def test_keeps_the_total_and_the_proportions_of_the_rest(weights, sink):
    sink_tokens, min_tokens = sink
    fixed = fix_sink(weights, sink_tokens, min_tokens)
    assert fixed.sum() == pytest.approx(weights.sum(), rel=1e-12)
    rest, fixed_rest = weights[sink_tokens:], fixed[sink_tokens:]
    if rest.sum() > 0:
        np.testing.assert_allclose(fixed_rest * rest.sum(), rest * fixed_rest.sum(), rtol=1e-9, atol=1e-300)


@settings(deadline=None)
@given(weight_lists, sinks)
def test_the_first_tokens_get_the_mean(weights, sink):
    sink_tokens, min_tokens = sink
    assume(len(weights) >= min_tokens and len(weights) > sink_tokens)
    np.testing.assert_allclose(fix_sink(weights, sink_tokens, min_tokens)[:sink_tokens], weights.mean(), rtol=1e-12)


@pytest.mark.parametrize(
    ("n", "sink_tokens", "min_tokens"),
    [(4, 1, 5), (9, 0, 5), (5, 5, 3), (5, 6, 3), (1, 1, 1)],
    ids=["short", "off", "all are sink", "more sink than tokens", "one token"],
)
def test_changes_nothing(n, sink_tokens, min_tokens):
    weights = np.linspace(1, 2, n)
    assert fix_sink(weights, sink_tokens, min_tokens).tolist() == weights.tolist()


def test_acts_from_exactly_min_tokens_on():
    assert fix_sink(np.array([0.6, 0.1, 0.1, 0.1, 0.1]), 1, 5).tolist() == pytest.approx([0.2] * 5)


def test_all_weight_on_the_sink_becomes_uniform():
    assert fix_sink(np.array([1.0, 0, 0, 0, 0]), 1, 5).tolist() == [0.2] * 5
    assert fix_sink(np.array([0.5, 0.5, 0, 0, 0]), 2, 5).tolist() == [0.2] * 5


def test_almost_all_weight_on_the_sink_stays_finite():
    fixed = fix_sink(np.array([1.0, 5e-324, 0, 0, 0]), 1, 5)
    assert fixed.tolist() == pytest.approx([0.2, 0.8, 0, 0, 0])

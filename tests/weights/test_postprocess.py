"""From raw scores to a_t: the whole of the released code's arithmetic, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.config.postprocess import PostprocessParams
from pipeline.errors import DataError, NonFiniteError
from pipeline.weights.postprocess import response_weights

PAPER = PostprocessParams()
OFFICIAL = PostprocessParams(rounds="normalize_then_average")
scores = st.integers(1, 40).flatmap(
    lambda n: st.tuples(*[arrays(np.float32, n, elements=st.floats(0, 1, width=32)) for _ in range(2)])
)


def run(round_1, round_2, params=PAPER):
    return response_weights(round_1, round_2, params, pair_id="p7", response="rejected")


def test_a_hand_computed_response():
    round_1 = np.array([0.30, 0.05, 0.05, 0.05, 0.05], dtype=np.float32)
    round_2 = np.array([0.10, 0.00, 0.00, 0.00, 0.40], dtype=np.float32)
    paper = run(round_1, round_2)
    np.testing.assert_allclose(paper.with_sink, [0.4, 0.05, 0.05, 0.05, 0.45], rtol=1e-6)
    np.testing.assert_allclose(paper.weights, [0.2, 1 / 15, 1 / 15, 1 / 15, 0.6], rtol=1e-6)
    with_sink = run(round_1, round_2, PostprocessParams(sink_tokens=0))
    assert with_sink.weights.tolist() == with_sink.with_sink.astype(np.float32).tolist()


@settings(deadline=None)
@given(scores, st.integers(0, 4), st.sampled_from(["average_then_normalize", "normalize_then_average"]))
def test_weights_are_float32_not_negative_and_sum_to_one(pair, sink_tokens, order):
    result = run(*pair, PostprocessParams(sink_tokens=sink_tokens, rounds=order))
    assert result.weights.dtype == np.float32
    assert result.with_sink.dtype == np.float64
    assert (result.weights >= 0).all()
    assert result.weights.sum(dtype=np.float64) == pytest.approx(1, abs=1e-6)
    assert result.with_sink.sum() == pytest.approx(1, abs=1e-12)


@settings(deadline=None)
@given(scores)
def test_swapping_the_rounds_leaves_the_stored_weights_the_same(pair):
    round_1, round_2 = pair
    for params in (PAPER, OFFICIAL):
        assert run(round_1, round_2, params).weights.tolist() == run(round_2, round_1, params).weights.tolist()


def test_float64_inside():
    """A long response of tiny scores: float32 sums would be off in the fifth digit."""
    values = np.full(100_000, 1e-7, dtype=np.float32)
    np.testing.assert_allclose(run(values, values).weights, 1e-5, rtol=1e-7)


@pytest.mark.parametrize(
    ("round_1", "round_2", "error", "message"),
    [
        ([0.1, np.nan], [0.1, 0.1], NonFiniteError, "round 1: the score of token 1 is nan"),
        ([0.1, 0.1], [np.inf, 0.1], NonFiniteError, "round 2: the score of token 0 is inf"),
        ([0.1, 0.1], [0.1, -0.25], DataError, r"round 2: the score of token 1 is -0\.25"),
        ([0.1, 0.1], [0.1], DataError, "2 scores in round 1 but 1 in round 2"),
        ([], [], DataError, "at least one token"),
        ([[0.1]], [[0.1]], DataError, r"shape \(1, 1\)"),
    ],
)
def test_errors_name_the_pair_the_response_and_what_is_wrong(round_1, round_2, error, message):
    with pytest.raises(error, match=message) as raised:
        run(np.array(round_1), np.array(round_2))
    assert "pair p7, rejected response" in str(raised.value)

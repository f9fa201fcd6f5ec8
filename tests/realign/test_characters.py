"""carry_by_characters against a loop over characters that a reader can believe."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.realign.characters import carry_by_characters

span = st.tuples(st.integers(0, 15), st.integers(0, 4)).map(lambda pair: (pair[0], pair[0] + pair[1]))
spans = st.lists(span, min_size=1, max_size=12)
cuts = st.lists(st.integers(1, 19), max_size=10, unique=True)


def array(offsets):
    return np.array(offsets, dtype=np.int32).reshape(-1, 2)


def loop(train, judge, weights):
    new = [0.0] * len(train)
    for character in range(max(end for _, end in [*train, *judge])):
        mass = sum(
            w / (end - start) for w, (start, end) in zip(weights, judge, strict=True) if start <= character < end
        )
        sharers = [t for t, (start, end) in enumerate(train) if start <= character < end]
        for t in sharers:
            new[t] += mass / len(sharers)
    return new


def partition(inner):
    """Spans that cover 20 characters without a gap."""
    edges = [0, *sorted(inner), 20]
    return list(pairwise(edges))


def dirichlet(count, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(count))


@settings(deadline=None)
@given(train=spans, judge=spans, seed=st.integers(0, 99))
def test_equals_the_loop_for_any_spans(train, judge, seed):
    weights = dirichlet(len(judge), seed)
    carried = carry_by_characters(array(train), array(judge), weights)
    np.testing.assert_allclose(carried.weights, loop(train, judge, weights), rtol=1e-12, atol=1e-15)
    judged = {c for start, end in judge for c in range(start, end)}
    assert carried.matched.tolist() == [bool(judged & set(range(start, end))) for start, end in train]


@settings(deadline=None)
@given(train=cuts, judge=cuts, seed=st.integers(0, 99))
def test_keeps_the_sum_of_characters_that_both_cover(train, judge, seed):
    train, judge = partition(train), partition(judge)
    weights = dirichlet(len(judge), seed)
    assert carry_by_characters(array(train), array(judge), weights).matched_mass == pytest.approx(1, abs=1e-12)
    cut = train[: len(train) // 2 + 1]
    seen = sum(
        w * max(0, min(end, cut[-1][1]) - start) / (end - start) for w, (start, end) in zip(weights, judge, strict=True)
    )
    assert carry_by_characters(array(cut), array(judge), weights).matched_mass == pytest.approx(seen, abs=1e-12)


@settings(deadline=None)
@given(judge=cuts, seed=st.integers(0, 99))
def test_same_spans_keep_every_weight(judge, seed):
    offsets = array(partition(judge))
    weights = dirichlet(len(offsets), seed)
    np.testing.assert_allclose(carry_by_characters(offsets, offsets, weights).weights, weights, rtol=1e-13)


def test_byte_tokens_share_the_character_they_are_part_of():
    carried = carry_by_characters(
        array([(0, 1), (0, 1), (0, 1), (1, 3)]), array([(0, 1), (1, 3)]), np.array([0.6, 0.4])
    )
    np.testing.assert_allclose(carried.weights, [0.2, 0.2, 0.2, 0.4])
    back = carry_by_characters(
        array([(0, 1), (1, 3)]), array([(0, 1), (0, 1), (0, 1), (1, 3)]), np.array([0.1, 0.2, 0.3, 0.4])
    )
    np.testing.assert_allclose(back.weights, [0.6, 0.4])


def test_zero_width_tokens_get_nothing_and_give_nothing():
    carried = carry_by_characters(array([(0, 0), (0, 2), (2, 2)]), array([(0, 0), (0, 2)]), np.array([0.3, 0.7]))
    np.testing.assert_allclose(carried.weights, [0, 0.7, 0])
    assert carried.matched.tolist() == [False, True, False]
    assert carried.matched_mass == pytest.approx(0.7)


@pytest.mark.parametrize(("train", "judge"), [([], [(0, 2)]), ([(0, 2)], [(3, 5)]), ([(1, 1)], [(0, 2)])])
def test_nothing_in_common(train, judge):
    carried = carry_by_characters(array(train), array(judge), np.ones(1))
    assert carried.weights.tolist() == [0.0] * len(train)
    assert (carried.matched_tokens, carried.matched_mass) == (0, 0.0)


def test_real_tokens_of_a_byte_level_tokenizer(default_tokenizer):
    text = "Grüße 👩‍🚀🇨🇭: naïve café, 東京 — «oui»\n\n\tx+=1;  end"
    encoded = default_tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    train = array(encoded["offset_mapping"])
    characters = array([(k, k + 1) for k in range(len(text))])
    assert len(train) > len({tuple(row) for row in train.tolist()})
    weights = dirichlet(len(characters))
    carried = carry_by_characters(train, characters, weights)
    np.testing.assert_allclose(carried.weights, loop(train.tolist(), characters.tolist(), weights), rtol=1e-12)
    assert carried.matched.all()
    assert carried.matched_mass == pytest.approx(1, abs=1e-12)

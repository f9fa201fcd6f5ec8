"""carry_by_tokens against the rule of the released code, written out with the package `edit-distance`."""

import numpy as np
import pytest
from edit_distance import SequenceMatcher
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.realign.carry import carry_by_tokens

ids = st.lists(st.integers(0, 3), min_size=1, max_size=14)


def array(values):
    return np.array(values, dtype=np.int32)


def released_code(train_ids, judge_ids, weights):
    """New weights and matched positions, as `tokenize_row` of the released trainer finds them (less its factor |y|)."""
    shorter = min(len(train_ids), len(judge_ids))
    if train_ids[:shorter] == judge_ids[:shorter]:
        pairs = [(k, k) for k in range(shorter)]
    else:
        pairs = [(i, j) for i, j, _ in SequenceMatcher(a=train_ids, b=judge_ids).get_matching_blocks()]
    new = [0.0] * len(train_ids)
    for i, j in pairs:
        new[i] = weights[j]
    return new, {i for i, _ in pairs}


@settings(deadline=None)
@given(train=ids, judge=ids, seed=st.integers(0, 99), prefix=st.booleans())
def test_official_is_the_released_code(train, judge, seed, prefix):
    if prefix:
        judge = (train + judge)[: len(judge)]
    weights = np.random.default_rng(seed).dirichlet(np.ones(len(judge)))
    carried = carry_by_tokens(array(train), array(judge), weights, "official")
    expected, matched = released_code(train, judge, weights)
    assert carried.weights.tolist() == expected
    assert set(np.flatnonzero(carried.matched)) == matched


@settings(deadline=None)
@given(train=ids, judge=ids, seed=st.integers(0, 99))
def test_edit_distance_follows_the_package(train, judge, seed):
    weights = np.random.default_rng(seed).dirichlet(np.ones(len(judge)))
    carried = carry_by_tokens(array(train), array(judge), weights, "edit_distance")
    expected = np.zeros(len(train))
    for i, j, _ in SequenceMatcher(a=train, b=judge).get_matching_blocks():
        expected[i] = weights[j]
    assert carried.weights.tolist() == expected.tolist()
    assert carried.matched_mass == pytest.approx(expected.sum(), abs=1e-12)
    assert carried.matched_tokens <= min(len(train), len(judge))


@pytest.mark.parametrize("match", ["edit_distance", "official"])
def test_equal_ids_keep_every_weight(match):
    weights = np.array([0.5, 0.2, 0.3])
    carried = carry_by_tokens(array([4, 4, 9]), array([4, 4, 9]), weights, match)
    assert carried.weights.tolist() == weights.tolist()
    assert carried.matched.all()


def test_the_two_rules_differ_where_the_judge_saw_less():
    train, judge, weights = array([1, 2, 3, 2]), array([1, 2]), np.array([0.4, 0.6])
    assert carry_by_tokens(train, judge, weights, "official").weights.tolist() == [0.4, 0.6, 0.0, 0.0]
    assert carry_by_tokens(train, judge, weights, "edit_distance").weights.tolist() == [0.4, 0.0, 0.0, 0.6]


def test_the_training_ids_are_the_first_argument_of_the_alignment():
    """Aligned the other way round, the first two training tokens would be matched, not the last two."""
    carried = carry_by_tokens(array([0, 1, 0]), array([1, 0, 1]), np.array([0.5, 0.3, 0.2]), "edit_distance")
    assert carried.weights.tolist() == [0.0, 0.5, 0.3]


def test_a_match_of_weight_zero_is_still_a_match():
    carried = carry_by_tokens(array([1, 2]), array([1, 2]), np.array([1.0, 0.0]), "edit_distance")
    assert (carried.matched_tokens, carried.matched_mass) == (2, 1.0)


@pytest.mark.parametrize("match", ["edit_distance", "official"])
def test_cut_to_nothing(match):
    carried = carry_by_tokens(array([]), array([1, 2]), np.array([0.5, 0.5]), match)
    assert (len(carried.weights), carried.matched_tokens, carried.matched_mass) == (0, 0, 0.0)

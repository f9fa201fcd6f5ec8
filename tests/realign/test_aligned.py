"""Realignment of one response, against the released code's arithmetic and by its invariants."""

import numpy as np
import pytest
from edit_distance import SequenceMatcher
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.realign import RealignParams
from pipeline.errors import DataError, NonFiniteError
from pipeline.realign.aligned import JudgeTokens, NotAligned, TrainTokens, align_response

PAPER = RealignParams()
OFFICIAL = RealignParams(match="official")
CLEAN = RealignParams(eos_weight="mean", renormalize=True, length="trained")
EOS = 99
ids = st.lists(st.integers(0, 4), min_size=1, max_size=14)


def one_character_each(count):
    return np.array([(k, k + 1) for k in range(count)], dtype=np.int32).reshape(-1, 2)


def judge_tokens(token_ids, weights=None):
    n = len(token_ids)
    weights = np.full(n, 1 / n) if weights is None else weights
    return JudgeTokens(
        token_ids=np.array(token_ids, dtype=np.int32),
        offsets=one_character_each(n),
        weights=np.asarray(weights, dtype=np.float32),
    )


def train_tokens(token_ids, eos=True):
    return TrainTokens(
        token_ids=np.array([*token_ids, EOS] if eos else token_ids, dtype=np.int32),
        offsets=one_character_each(len(token_ids) + eos),
        eos=eos,
    )


def align(judge, train, params, by_characters=False):
    return align_response(judge, train, params, by_characters=by_characters, pair_id="p1", response="chosen")


def dirichlet(count, seed):
    return np.random.default_rng(seed).dirichlet(np.ones(count)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 49, 110, 1021, 2048])
@pytest.mark.parametrize("eos", [True, False])
@pytest.mark.parametrize("by_characters", [True, False])
def test_clean_with_uniform_weights_is_dpo(count, eos, by_characters):
    """Every trained token, end of turn included, counts 1: the float32 nearest to 1/T, times |y| = T."""
    response = list(range(count))
    aligned = align(judge_tokens(response), train_tokens(response, eos), CLEAN, by_characters)
    trained = count + eos
    assert aligned.length == trained
    assert aligned.weights.dtype == np.float32
    assert (aligned.weights == np.float32(1 / trained)).all()
    np.testing.assert_allclose(aligned.weights * aligned.length, 1, rtol=1.2e-7)
    assert (aligned.matched_tokens, aligned.matched_mass) == (1, pytest.approx(1, abs=1e-6))


def released_code(judge, train):
    """`tokenize_row` of the released trainer: what the loss multiplies with, |y| included."""
    input_ids, original = train.token_ids.tolist(), judge.token_ids.tolist()
    weights = [w * len(original) for w in judge.weights.astype(np.float64)]
    shorter = min(len(input_ids), len(original))
    if input_ids[:shorter] == original[:shorter]:
        return (weights[:shorter] + [0.0] * len(input_ids))[: len(input_ids)]
    new = [0.0] * len(input_ids)
    for i, j, _ in SequenceMatcher(a=input_ids, b=original).get_matching_blocks():
        new[i] = weights[j]
    return new


@settings(deadline=None)
@given(train=ids, judge=ids, eos=st.booleans(), prefix=st.booleans(), seed=st.integers(0, 99))
def test_official_is_the_released_trainer(train, judge, eos, prefix, seed):
    if prefix:
        judge = (train + judge)[: len(judge)]
    judge, train = judge_tokens(judge, dirichlet(len(judge), seed)), train_tokens(train, eos)
    aligned, released = align(judge, train, OFFICIAL), released_code(judge, train)
    if not any(released):
        assert isinstance(aligned, NotAligned)
        return
    np.testing.assert_allclose(aligned.weights * aligned.length, released, rtol=1e-6)


@settings(deadline=None)
@given(train=ids, judge=ids, eos=st.booleans(), seed=st.integers(0, 99), by_characters=st.booleans())
def test_paper_sum_is_the_matched_mass_and_the_end_of_turn_gets_nothing(train, judge, eos, seed, by_characters):
    weights = dirichlet(len(judge), seed)
    aligned = align(judge_tokens(judge, weights), train_tokens(train, eos), PAPER, by_characters)
    # Both sides' offsets are a character a token; otherwise equal tokens match, by the package itself.
    blocks = [(i, i, 1) for i in range(min(len(train), len(judge)))]
    if not by_characters:
        blocks = SequenceMatcher(a=train, b=judge).get_matching_blocks()
    mass = sum(float(weights[j]) for _, j, size in blocks if size)
    if mass == 0:
        assert isinstance(aligned, NotAligned)
        return
    assert aligned.weights.sum(dtype=np.float64) == pytest.approx(mass, abs=1e-6)
    assert aligned.matched_mass == pytest.approx(mass, abs=1e-6)
    assert 0 <= aligned.matched_tokens <= 1
    assert 0 <= aligned.matched_mass <= 1 + 1e-6
    assert aligned.length == len(judge)
    assert len(aligned.weights) == len(train) + eos
    assert not eos or aligned.weights[-1] == 0


@settings(deadline=None)
@given(train=ids, judge=ids, eos=st.booleans(), seed=st.integers(0, 99), by_characters=st.booleans())
def test_clean_sums_to_one_and_keeps_proportions(train, judge, eos, seed, by_characters):
    judge, train = judge_tokens(judge, dirichlet(len(judge), seed)), train_tokens(train, eos)
    paper, clean = (align(judge, train, params, by_characters) for params in (PAPER, CLEAN))
    if isinstance(paper, NotAligned):
        assert isinstance(clean, NotAligned)
        return
    assert clean.weights.sum(dtype=np.float64) == pytest.approx(1, abs=1e-6)
    assert (clean.matched_tokens, clean.matched_mass) == (paper.matched_tokens, paper.matched_mass)
    content = len(train.token_ids) - eos
    matched = round(paper.matched_tokens * content)
    factor = 1 / (paper.matched_mass * (1 + eos / matched))
    np.testing.assert_allclose(clean.weights[:content], paper.weights[:content] * factor, rtol=1e-5, atol=1e-9)
    if eos:
        assert clean.weights[-1] == pytest.approx(paper.matched_mass / matched * factor, rel=1e-5)


def test_the_mean_goes_over_matched_tokens_only():
    params = RealignParams(eos_weight="mean")
    aligned = align(judge_tokens([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4]), train_tokens([1, 2, 8, 9]), params)
    np.testing.assert_allclose(aligned.weights, [0.1, 0.2, 0, 0, 0.15], rtol=1e-6)
    assert (aligned.matched_tokens, aligned.matched_mass) == (0.5, pytest.approx(0.3))
    cut = align(judge_tokens([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4]), train_tokens([1, 2], eos=False), params)
    np.testing.assert_allclose(cut.weights, [0.1, 0.2], rtol=1e-6)


def test_a_cut_judge_context_leaves_the_rest_without_weight():
    aligned = align(judge_tokens([1, 2], [0.4, 0.6]), train_tokens([1, 2, 3, 4]), PAPER)
    np.testing.assert_allclose(aligned.weights, [0.4, 0.6, 0, 0, 0], rtol=1e-6)
    assert (aligned.length, aligned.matched_tokens) == (2, 0.5)
    assert align(judge_tokens([1, 2]), train_tokens([1, 2, 3, 4]), CLEAN).length == 5


def test_an_end_of_turn_id_in_the_judge_context_is_not_matched():
    aligned = align(judge_tokens([1, EOS], [0.25, 0.75]), train_tokens([1]), OFFICIAL)
    np.testing.assert_allclose(aligned.weights, [0.25, 0])
    assert (aligned.matched_tokens, aligned.matched_mass) == (1, 0.25)


@pytest.mark.parametrize(
    ("judge", "train"),
    [
        (judge_tokens([1, 2]), train_tokens([8, 9])),
        (judge_tokens([1, 2], [0, 1]), train_tokens([1])),
        (judge_tokens([1]), train_tokens([])),
    ],
    ids=["no token", "only tokens of weight 0", "only the end of turn"],
)
@pytest.mark.parametrize("params", [CLEAN, PAPER])
def test_a_response_without_weight_refuses_the_pair(judge, train, params):
    refused = align(judge, train, params)
    assert isinstance(refused, NotAligned)
    assert refused.reason == "no_matched_mass"
    assert "chosen" in refused.detail


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([0.5, np.nan], NonFiniteError, "weight of judge token 1 is nan"),
        ([np.inf, 0.5], NonFiniteError, "weight of judge token 0 is inf"),
        ([0.5, 0.6], DataError, r"sum is 1\.1"),
        ([-0.5, 1.5], DataError, r"minimum -0\.5"),
        ([1.0], DataError, "2 judge ids, 2 offsets and 1 weights"),
    ],
)
def test_errors_name_the_pair(weights, error, message):
    with pytest.raises(error, match=message) as raised:
        align(judge_tokens([1, 2], weights), train_tokens([1, 2]), PAPER)
    assert "pair p1, chosen response" in str(raised.value)


def test_training_offsets_of_another_length_are_an_error():
    train = train_tokens([1, 2])
    damaged = TrainTokens(token_ids=train.token_ids, offsets=train.offsets[:-1], eos=True)
    with pytest.raises(DataError, match="pair p1, chosen response: 3 training ids but 2 offsets"):
        align(judge_tokens([1, 2]), damaged, PAPER)

"""Sampling: transformers' logits warpers are the reference of what can be drawn, and how likely."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from pipeline.config.third import ThirdParams
from pipeline.errors import ModelError
from pipeline.models.generation.sample import candidates, draw, sample_responses, uniform
from tests.models import tiny


def by_warpers(logits: torch.Tensor, params: ThirdParams) -> torch.Tensor:
    """In the order of `GenerationMixin._get_logits_processor`; probabilities [n, V]."""
    scores = TemperatureLogitsWarper(params.temperature)(None, logits)
    if params.top_k is not None:
        scores = TopKLogitsWarper(params.top_k)(None, scores)
    if params.top_p < 1:
        scores = TopPLogitsWarper(params.top_p)(None, scores)
    return scores.softmax(dim=-1)


def dense(logits: torch.Tensor, params: ThirdParams) -> np.ndarray:
    found = np.zeros(logits.shape)
    for row, (tokens, probabilities) in zip(found, candidates(logits, params), strict=True):
        assert len(set(tokens.tolist())) == len(tokens)
        row[tokens] = probabilities
    return found


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**31),
    width=st.integers(1, 80),
    spread=st.floats(0.1, 10),
    temperature=st.floats(0.05, 3),
    top_k=st.none() | st.integers(1, 100),
    top_p=st.floats(0.01, 1.0),
)
def test_equals_the_warpers_of_transformers(seed, width, spread, temperature, top_k, top_p) -> None:
    logits = torch.randn(3, width, generator=torch.Generator().manual_seed(seed)) * spread
    params = ThirdParams(temperature=temperature, top_k=top_k, top_p=top_p)
    expected = by_warpers(logits, params).numpy()
    ours = dense(logits, params)
    np.testing.assert_allclose(ours.sum(1), 1, rtol=1e-12)
    # Where a cumulative probability is top_p but for its last bits, float32 there and float64 here may part.
    for mine, theirs, row in zip(ours, expected, logits, strict=True):
        if ((mine > 0) != (theirs > 0)).any():
            scores = TemperatureLogitsWarper(temperature)(None, row[None])
            scores = scores if top_k is None else TopKLogitsWarper(top_k)(None, scores)
            ends = scores.double().softmax(-1).sort(descending=True).values.cumsum(-1)
            assert (ends - top_p).abs().min() < 1e-5
        else:
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-7)


def test_the_defaults_equal_the_warpers_on_a_vocabulary() -> None:
    logits = torch.randn(8, 5_000, generator=torch.Generator().manual_seed(1)) * 3
    np.testing.assert_allclose(dense(logits, ThirdParams()), by_warpers(logits, ThirdParams()), rtol=1e-4, atol=1e-7)


def test_ties_with_the_kth_stay_as_in_transformers() -> None:
    """bfloat16 has many: which of them were dropped would depend on the device."""
    logits = torch.randn(20, 400, generator=torch.Generator().manual_seed(2)).mul(2).round()
    params = ThirdParams(top_k=30, top_p=1.0)
    ours = dense(logits, params)
    assert (ours > 0).sum(1).max() > 30
    np.testing.assert_allclose(ours, by_warpers(logits, params), rtol=1e-5)


def test_likeliest_first_and_equal_ones_by_id() -> None:
    ((tokens, probabilities),) = candidates(
        torch.tensor([[1.0, 3.0, 1.0, 3.0, 2.0]]), ThirdParams(top_p=1.0, top_k=None)
    )
    assert tokens.tolist() == [1, 3, 4, 0, 2]
    assert (np.diff(probabilities) <= 0).all()


def test_a_token_that_is_impossible_is_never_drawn() -> None:
    logits = torch.full((1, 9), float("-inf"))
    logits[0, 4] = 1.0
    for top_k in (None, 3, 9, 50):
        ((tokens, probabilities),) = candidates(logits, ThirdParams(top_k=top_k, top_p=1.0))
        assert (tokens.tolist(), probabilities.tolist()) == ([4], [1.0])


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=20), st.floats(0, 1, exclude_max=True))
def test_a_draw_is_the_share_that_holds_it(weights: list[float], at: float) -> None:
    probabilities = np.array(weights) / sum(weights)
    index = draw(probabilities, at)
    below, above = probabilities[:index].sum(), probabilities[: index + 1].sum()
    assert below <= at + 1e-12
    assert at < above + 1e-12


def test_the_ends_of_the_interval() -> None:
    probabilities = np.array([0.25, 0.5, 0.25])
    assert [draw(probabilities, at) for at in (0.0, 0.25, 0.75, 1 - 2**-53)] == [0, 1, 2, 2]
    assert draw(np.array([0.1] * 10), 1 - 2**-53) == 9


def test_draws_are_uniform_and_their_own() -> None:
    drawn = np.array([uniform(42, f"pair-{pair}", step) for pair in range(200) for step in range(20)])
    assert ((drawn >= 0) & (drawn < 1)).all()
    assert len(set(drawn.tolist())) == drawn.size
    counts, _ = np.histogram(drawn, 20, (0, 1))
    assert ((counts - 200) ** 2 / 200).sum() < 43.8, "chi-square with 19 degrees of freedom, p = 0.001"
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.06
    assert uniform(42, "a", 0) != uniform(43, "a", 0)
    # Of this version and every later one: cached anchors must not change.
    assert uniform(42, "a", 0) == int.from_bytes(_digest("42 a 0")[:8], "big") // 2**11 / 2**53


def _digest(text: str) -> bytes:
    import hashlib

    return hashlib.sha256(text.encode()).digest()


PROMPTS = [[20, 21, 22], [30], [40, 41, 42, 43, 44, 45, 46], [50, 51], [20, 21, 22]]
PAIRS = ["a", "b", "c", "d", "e"]
STOPS = frozenset({2, 3, 5, 7})


def test_neither_the_batch_nor_the_order_matters() -> None:
    model, params = tiny.model("qwen3"), ThirdParams(max_new_tokens=12)
    whole = sample_responses(model, STOPS, PROMPTS, PAIRS, params, tiny.budget(100_000))
    assert sample_responses(model, STOPS, PROMPTS, PAIRS, params, tiny.budget(1)) == whole
    assert sample_responses(model, STOPS, PROMPTS[::-1], PAIRS[::-1], params, tiny.budget(60))[::-1] == whole
    assert sample_responses(model, STOPS, PROMPTS[2:3], PAIRS[2:3], params, tiny.budget(60)) == whole[2:3]
    assert whole[0] != whole[4], "the same prompt of another pair"
    assert (
        sample_responses(model, STOPS, PROMPTS, PAIRS, ThirdParams(max_new_tokens=12, seed=7), tiny.budget(100_000))
        != whole
    )


def test_samples_end_with_their_stop_and_are_never_empty() -> None:
    model = tiny.model("llama")
    pairs = [str(number) for number in range(60)]
    params = ThirdParams(max_new_tokens=9, temperature=2.0)
    found = sample_responses(model, STOPS, [[20, 21]] * 60, pairs, params, tiny.budget(100_000))
    ended = [ids for ids in found if ids[-1] in STOPS]
    assert 0 < len(ended) < 60
    assert all(1 <= len(ids) <= 9 for ids in found)
    assert all(len(ids) == 9 for ids in found if ids[-1] not in STOPS)
    assert not any(token in STOPS for ids in found for token in ids[:-1])
    everything = range(model.config.vocab_size)
    ended_at_once = sample_responses(model, everything, [[20, 21]] * 3, pairs[:3], params, tiny.budget(100_000))
    assert [len(ids) for ids in ended_at_once] == [1, 1, 1]


def test_first_tokens_have_the_distribution_of_transformers() -> None:
    """Chi-square over 3000 pairs with one prompt; the logits are transformers'."""
    model, params = tiny.model("llama"), ThirdParams(max_new_tokens=1, top_k=8, top_p=0.9)
    with torch.inference_mode():
        logits = model(torch.tensor([[20, 21, 22]])).logits[:, -1].float()
    expected = by_warpers(logits, params)[0].numpy()
    pairs = [str(number) for number in range(3000)]
    drawn = Counter(
        ids[0] for ids in sample_responses(model, (), [[20, 21, 22]] * 3000, pairs, params, tiny.budget(12_000))
    )
    likely = np.flatnonzero(expected)
    assert set(drawn) <= set(likely.tolist())
    assert len(likely) > 3
    counts = np.array([drawn[int(token)] for token in likely])
    statistic = ((counts - 3000 * expected[likely]) ** 2 / (3000 * expected[likely])).sum()
    assert statistic < 24.4, "p = 0.001 with 7 degrees of freedom, fewer make it smaller"


def test_a_prompt_without_room_names_its_pair() -> None:
    with pytest.raises(ModelError, match=r"pair b has 64 tokens and the model reads 64"):
        sample_responses(tiny.model("llama"), STOPS, [[20], [20] * 64], ["a", "b"], ThirdParams(), tiny.budget(1000))


def test_params_are_checked() -> None:
    for wrong in ({"temperature": 0.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}, {"max_new_tokens": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ThirdParams(**wrong)
    assert ThirdParams().model_dump() == {
        "max_new_tokens": 64,
        "temperature": 0.8,
        "top_k": 50,
        "top_p": 0.95,
        "seed": 42,
    }

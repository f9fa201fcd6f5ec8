"""vLLM's rows and verdicts on the default model against the transformers backend's, float32 and bfloat16."""

import math
from dataclasses import replace

import numpy as np
import pytest

from pipeline.attention.vllm import engine as vllm_engine
from pipeline.attention.vllm.check import row_difference
from tests.vllm.conftest import LETTERS
from tests.vllm.references import assert_same, by_transformers


@pytest.fixture(scope="module")
def expected(default_model_dir, sample_prompts):
    """Every head of three layers, float32."""
    return by_transformers(default_model_dir, sample_prompts, heads="each")


@pytest.fixture(scope="module")
def expected_mean(expected):
    return [replace(one, rows=heads_of(one.rows, lambda row: row.mean(0, keepdims=True))) for one in expected]


def heads_of(rows, choose):
    return {layer: [choose(row) for row in spans] for layer, spans in rows.items()}


def test_cold_and_warm_and_in_another_order(opened, sample_prompts, expected_mean):
    """The second time whole prompts are cached but for their last block; the mirror still holds their keys."""
    backend = opened()
    done = []
    assert_same(backend.run(sample_prompts, done.append), expected_mean)
    assert sum(done) == len(sample_prompts)
    tokens = sum(len(prompt.input_ids) for prompt in sample_prompts)
    cold = backend.usage.computed_tokens
    assert backend.usage.prompt_tokens == tokens, "the comparison is not counted"
    assert cold < 0.8 * tokens, "the header and the question of both rounds are computed once"
    twice = [prompt for prompt in sample_prompts[::-1] for _ in range(2)]
    assert_same(backend.run(twice), [one for one in expected_mean[::-1] for _ in range(2)])
    assert cold <= backend.usage.computed_tokens - cold <= cold + 32 * len(sample_prompts)
    assert backend.run([]) == []


def test_the_same_bytes_whatever_was_judged_before(opened, sample_prompts):
    """What a resumed run writes: the last prompts alone, and after others whose keys they share."""
    fresh = opened(dtype="bfloat16").run(sample_prompts[4:])
    backend = opened(dtype="bfloat16")
    backend.run(sample_prompts[:6])
    for found, expected in zip(backend.run(sample_prompts[4:]), fresh, strict=True):
        assert found.verdict == expected.verdict
        for layer, spans in expected.rows.items():
            assert [row.tobytes() for row in found.rows[layer]] == [row.tobytes() for row in spans]


def test_without_prefix_caching(opened, sample_prompts, expected_mean):
    backend = opened(prefix_caching=False)
    assert_same(backend.run(sample_prompts), expected_mean)
    assert backend.usage.computed_tokens == backend.usage.prompt_tokens


def test_chunks_smaller_than_a_prompt_and_every_head(opened, sample_prompts, expected):
    assert min(len(prompt.input_ids) for prompt in sample_prompts) > 2 * 96
    done = []
    assert_same(opened(token_budget=96, heads="each").run(sample_prompts, done.append), expected)
    assert sum(done) == len(sample_prompts)
    assert len(done) > 2


def test_a_cache_of_few_blocks_with_preemption_and_some_heads(opened, sample_prompts, expected, monkeypatch):
    """Room for two prompts: all start at once, are preempted half way, and their blocks go to others."""
    from vllm.v1.core.sched.scheduler import Scheduler

    preempted = []
    preempt = Scheduler._preempt_request
    start = vllm_engine.start_engine
    at_once = {"long_prefill_token_threshold": 32, "scheduler_reserve_full_isl": False}
    monkeypatch.setattr(vllm_engine, "start_engine", lambda settings: start(settings | at_once))
    monkeypatch.setattr(
        Scheduler, "_preempt_request", lambda self, *args, **named: preempted.append(1) or preempt(self, *args, **named)
    )
    float32_keys_and_values = 30 * 2 * 3 * 64 * 4
    backend = opened(vllm_kv_cache_gib=24 * 32 * float32_keys_and_values / 2**30, token_budget=256, heads=[7, 2])
    some = [replace(one, rows=heads_of(one.rows, lambda row: row[[2, 7]])) for one in expected]
    for _ in range(2):
        assert_same(backend.run(sample_prompts), some)
    assert preempted


def test_three_tensor_parallel_ranks(opened, sample_prompts, expected):
    """9 heads and 3 key heads: a rank holds heads [3 r, 3 r + 3) and one key head; processes of their own."""
    backend = opened(tensor_parallel=3, heads=[5, 1, 6, 8], vllm_kv_cache_gib=0.1)
    some = [replace(one, rows=heads_of(one.rows, lambda row: row[[1, 5, 6, 8]])) for one in expected]
    assert_same(backend.run(sample_prompts), some)


def test_rows_without_verdicts(opened, sample_prompts, expected_mean):
    backend = opened(verdicts=False, layers=[14])
    assert_same(
        backend.run(sample_prompts),
        [replace(one, rows={14: one.rows[14]}, verdict=None) for one in expected_mean],
    )


def test_the_row_of_the_verdict_token(opened, sample_prompts, default_model_dir):
    prompts = sample_prompts[:4]
    expected = by_transformers(default_model_dir, prompts, query="verdict_token_row")
    assert_same(opened(query="verdict_token_row").run(prompts), expected)


def test_real_prompts_in_bfloat16(opened, real_prompts, default_model_dir):
    """Both backends round, each its own way; but the head works in float32, so that verdicts are seldom ties."""
    expected = by_transformers(default_model_dir, real_prompts, dtype="bfloat16")
    found = opened(dtype="bfloat16").run(real_prompts)
    for ours, theirs in zip(found, expected, strict=True):
        for layer in (0, 14, 29):
            assert row_difference(theirs.rows[layer], ours.rows[layer]) < 0.15
            assert ours.rows[layer][0].dtype == np.float32
        assert ours.verdict.prob_a == pytest.approx(theirs.verdict.prob_a, abs=0.05)
    gaps = np.array([math.log(one.verdict.prob_a / one.verdict.prob_b) for one in found])
    # Logits of 2 and more are multiples of 1/64 in bfloat16, and so are their differences.
    assert np.abs(gaps * 64 - np.round(gaps * 64)).max() > 0.05
    for layer in (0, 14, 29):
        np.testing.assert_allclose(found[0].rows[layer][0], found[-1].rows[layer][0], atol=5e-3, err_msg="same prompt")


def test_verdict_tokens_that_nobody_would_say(opened, sample_prompts, default_model_dir):
    """Their probabilities are not among the highest; they are those of the whole vocabulary all the same."""
    backend = opened(layers=[0])
    backend._verdict_ids = (40_000, 12)
    expected = by_transformers(default_model_dir, sample_prompts[:2], layers=[0], verdict_ids=(40_000, 12))
    found = backend.run(sample_prompts[:2])
    assert_same(found, expected)
    assert found[0].verdict.prob_a == pytest.approx(expected[0].verdict.prob_a, rel=1e-3)
    assert found[0].verdict.top_token not in (40_000, 12, *LETTERS)

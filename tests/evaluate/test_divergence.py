"""Divergences and log-probs against whole logits in double precision, for tiny models of two kinds."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from pipeline.config.train import TrainParams
from pipeline.errors import NonFiniteError
from pipeline.evaluate.divergence import TokenSequence, divergences, score_responses
from pipeline.evaluate.pairs import evaluate_pairs
from pipeline.evaluate.table import NUMBERS
from pipeline.models.logps import LogProbModel
from pipeline.train.pairs import TrainedPair, TrainedResponse

_SHAPE: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
}


def llama(seed: int) -> LogProbModel:
    torch.manual_seed(seed)
    return LogProbModel(LlamaForCausalLM(LlamaConfig(**_SHAPE, initializer_range=0.3)).eval(), chunk_size=5)


def gemma2(seed: int) -> LogProbModel:
    torch.manual_seed(seed)
    config = Gemma2Config(**_SHAPE, initializer_range=0.3, final_logit_softcapping=3.0, query_pre_attn_scalar=8)
    return LogProbModel(Gemma2ForCausalLM(config).eval(), chunk_size=5)


def sequences(lengths: tuple[tuple[int, int], ...] = ((3, 7), (1, 1), (6, 4))) -> list[TokenSequence]:
    random = np.random.default_rng(0)
    return [TokenSequence(random.integers(0, 61, prompt), random.integers(0, 61, tokens)) for prompt, tokens in lengths]


@pytest.mark.parametrize("make", [llama, gemma2])
def test_equals_whole_logits_in_double_precision(make: Any) -> None:
    start, policy = make(0), make(1)
    for sequence, scores in zip(sequences(), score_responses(policy, start, sequences(), 64), strict=True):
        p, q = _log_probs(start, sequence), _log_probs(policy, sequence)
        np.testing.assert_allclose(scores.kl_forward, (np.exp(p) * (p - q)).sum(-1), atol=2e-5)
        np.testing.assert_allclose(scores.kl_reverse, (np.exp(q) * (q - p)).sum(-1), atol=2e-5)
        np.testing.assert_allclose(scores.logps, q[np.arange(len(q)), sequence.response_ids], atol=2e-5)
        assert scores.kl_forward.mean() > 0.01


def test_log_probs_are_those_of_the_trainer() -> None:
    policy = llama(1)
    for sequence, scores in zip(sequences(), score_responses(policy, llama(0), sequences(), 64), strict=True):
        ids = torch.from_numpy(np.concatenate([sequence.prompt_ids, sequence.response_ids]))[None]
        response = torch.arange(ids.shape[1])[None] >= len(sequence.prompt_ids)
        with torch.no_grad():
            expected = policy(ids, response)[response].numpy()
        np.testing.assert_allclose(scores.logps, expected, atol=1e-6)


def test_batches_change_nothing_and_the_order_is_kept() -> None:
    one_by_one = score_responses(llama(1), llama(0), sequences(), 1)
    for budget in (12, 24, 1000):
        for alone, batched in zip(one_by_one, score_responses(llama(1), llama(0), sequences(), budget), strict=True):
            np.testing.assert_allclose(batched.logps, alone.logps, atol=1e-5)
            np.testing.assert_allclose(batched.kl_forward, alone.kl_forward, atol=1e-5)


def test_a_model_has_no_divergence_from_itself() -> None:
    for scores in score_responses(llama(0), llama(0), sequences(), 64):
        assert not scores.kl_forward.any()
        assert not scores.kl_reverse.any()


def test_divergences_of_known_distributions() -> None:
    start, policy = (torch.tensor([row, row[::-1]]).log() for row in ([0.5, 0.25, 0.25], [0.25, 0.5, 0.25]))
    forward, reverse = divergences(start, policy)
    assert forward[0] == pytest.approx(0.25 * np.log(2), abs=1e-6)
    assert reverse[0] == pytest.approx(0.25 * np.log(2), abs=1e-6)
    assert forward[1] == pytest.approx(0.25 * np.log(2), abs=1e-6)


def test_every_number_of_a_pair_is_there() -> None:
    pairs = [_pair("a", 3), _pair("b", 4)]
    rows = evaluate_pairs(llama(1), llama(0), pairs, TrainParams(), 64)
    assert [pair_id for pair_id, _ in rows] == ["a", "b"]
    assert all(set(numbers) == set(NUMBERS) for _, numbers in rows)


def test_a_broken_policy_names_the_pair() -> None:
    policy = llama(1)
    with torch.no_grad():
        policy.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="pair a"):
        evaluate_pairs(policy, llama(0), [_pair("a", 3)], TrainParams(), 64)


def _log_probs(model: LogProbModel, sequence: TokenSequence) -> np.ndarray:
    ids = torch.from_numpy(np.concatenate([sequence.prompt_ids, sequence.response_ids]))[None]
    with torch.no_grad():
        logits = model.model(ids).logits[0].double()
    return logits[len(sequence.prompt_ids) - 1 : -1].log_softmax(-1).numpy()


def _pair(pair_id: str, tokens: int) -> TrainedPair:
    random = np.random.default_rng(tokens)

    def response(length: int) -> TrainedResponse:
        uniform = np.full(length, 1 / length, np.float32)
        logps = -random.exponential(1.0, length).astype(np.float32)
        return TrainedResponse(random.integers(0, 61, length), uniform, logps, float(length))

    return TrainedPair(pair_id, random.integers(0, 61, 2), response(tokens), response(tokens + 1))

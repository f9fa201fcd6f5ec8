"""Divergences and log-probs against whole logits in double precision, for tiny models of two kinds."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from pipeline.config.train import TrainParams
from pipeline.errors import NonFiniteError
from pipeline.evaluate.divergence import ResponseScores, divergences, score_responses
from pipeline.evaluate.pairs import evaluate_pairs
from pipeline.evaluate.table import NUMBERS
from pipeline.models.logps import LogProbModel
from pipeline.models.packed.layout import Prompted
from pipeline.models.response_logps import response_logps
from pipeline.train.pairs import TrainedPair, TrainedResponse
from tests.models import tiny

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
    return LogProbModel(LlamaForCausalLM(LlamaConfig(**_SHAPE, initializer_range=0.3)).eval())


def gemma2(seed: int) -> LogProbModel:
    torch.manual_seed(seed)
    config = Gemma2Config(**_SHAPE, initializer_range=0.3, final_logit_softcapping=3.0, query_pre_attn_scalar=8)
    return LogProbModel(Gemma2ForCausalLM(config).eval())


def items() -> list[Prompted]:
    random = np.random.default_rng(0)
    shapes = ((3, (7, 2)), (1, (1,)), (6, (4, 5)))
    return [
        Prompted(random.integers(0, 61, prompt), [random.integers(0, 61, tokens) for tokens in responses])
        for prompt, responses in shapes
    ]


def scored(policy: LogProbModel, start: LogProbModel, budget: int = 64) -> list[ResponseScores]:
    return [scores for of_item in score_responses(policy, start, items(), tiny.budget(budget)) for scores in of_item]


def sequences() -> list[tuple[np.ndarray, np.ndarray]]:
    """Prompt and response of each of `scored`."""
    return [(np.asarray(item.prompt_ids), np.asarray(response)) for item in items() for response in item.responses]


@pytest.mark.parametrize("make", [llama, gemma2])
def test_equals_whole_logits_in_double_precision(make: Any) -> None:
    start, policy = make(0), make(1)
    plain = [whole_log_probs(model) for model in (start, policy)]  # before the models attend in packed rows
    for number, ((_, response), scores) in enumerate(zip(sequences(), scored(policy, start), strict=True)):
        p, q = (of_model[number] for of_model in plain)
        np.testing.assert_allclose(scores.kl_forward, (np.exp(p) * (p - q)).sum(-1), atol=2e-5)
        np.testing.assert_allclose(scores.kl_reverse, (np.exp(q) * (q - p)).sum(-1), atol=2e-5)
        np.testing.assert_allclose(scores.logps, q[np.arange(len(q)), response], atol=2e-5)
        assert scores.kl_forward.mean() > 0.01


def test_log_probs_are_those_of_the_reference_and_the_trainer() -> None:
    policy = llama(1)
    expected = [logps for of_item in response_logps(policy, items(), tiny.budget(64)) for logps in of_item]
    for scores, logps in zip(scored(policy, llama(0)), expected, strict=True):
        np.testing.assert_allclose(scores.logps, logps, atol=1e-6)


def test_blocks_of_positions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scored(llama(1), llama(0))
    monkeypatch.setattr("pipeline.evaluate.divergence.POSITIONS_AT_ONCE", 5)
    for scores, expected in zip(scored(llama(1), llama(0)), whole, strict=True):
        np.testing.assert_allclose(scores.kl_forward, expected.kl_forward, atol=1e-6)
        np.testing.assert_allclose(scores.logps, expected.logps, atol=1e-6)


def test_batches_change_nothing_and_the_order_is_kept() -> None:
    one_by_one = scored(llama(1), llama(0), 1)
    for budget in (12, 24, 1000):
        for alone, batched in zip(one_by_one, scored(llama(1), llama(0), budget), strict=True):
            np.testing.assert_allclose(batched.logps, alone.logps, atol=1e-5)
            np.testing.assert_allclose(batched.kl_forward, alone.kl_forward, atol=1e-5)


def test_a_model_has_no_divergence_from_itself() -> None:
    for scores in scored(llama(0), llama(0)):
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
    rows = evaluate_pairs(llama(1), llama(0), pairs, TrainParams(), tiny.budget(64))
    assert [pair_id for pair_id, _ in rows] == ["a", "b"]
    assert all(set(numbers) == set(NUMBERS) for _, numbers in rows)


def test_a_broken_policy_names_the_pair() -> None:
    policy = llama(1)
    with torch.no_grad():
        policy.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="pair a"):
        evaluate_pairs(policy, llama(0), [_pair("a", 3)], TrainParams(), tiny.budget(64))


def whole_log_probs(model: LogProbModel) -> list[np.ndarray]:
    """Of every sequence, [T, V] in float64 from transformers' eager attention, padded by nothing."""
    double = copy.deepcopy(model.model).double()
    double.set_attn_implementation("eager")
    found = []
    for prompt, response in sequences():
        ids = torch.from_numpy(np.concatenate([prompt, response]))[None]
        with torch.no_grad():
            found.append(double(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].log_softmax(-1).numpy())
    return found


def _pair(pair_id: str, tokens: int) -> TrainedPair:
    random = np.random.default_rng(tokens)

    def response(length: int) -> TrainedResponse:
        uniform = np.full(length, 1 / length, np.float32)
        logps = -random.exponential(1.0, length).astype(np.float32)
        return TrainedResponse(random.integers(0, 61, length), uniform, logps, float(length))

    return TrainedPair(pair_id, random.integers(0, 61, 2), response(tokens), response(tokens + 1))

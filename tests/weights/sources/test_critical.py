"""Contrastive estimation against whole logits in double precision."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.config.score import CriticalScores
from pipeline.errors import ModelError, NonFiniteError
from pipeline.models.logps import LogProbModel
from pipeline.weights.sources.base import PairScores
from pipeline.weights.sources.critical import CriticalSource
from tests.models import tiny
from tests.weights.sources.examples import all_scored, exact, ignore, pairs, response_log_probs


def scored(kind: str, strength: float = 1.0, budget: int = 30, share: bool = True, seed: int = 1) -> list[PairScores]:
    models = LogProbModel(tiny.model(kind)), LogProbModel(tiny.model(kind, seed=seed))
    source = CriticalSource(*models, CriticalScores(strength=strength), tiny.budget(budget), share)
    return all_scored(source.run(pairs(), ignore))


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize(("kind", "strength"), [("llama", 1.0), ("gemma2", 1.0), ("llama", 0.5), ("llama", 0.0)])
def test_equals_whole_logits_in_float64(kind: str, strength: float, share: bool) -> None:
    positive, negative = exact(kind), exact(kind, 1)
    for pair, found in zip(pairs(), scored(kind, strength, share=share), strict=True):
        for response, ours in zip(pair.responses, (found.chosen, found.rejected), strict=True):
            good, bad = (response_log_probs(model, pair.prompt_ids, response) for model in (positive, negative))
            probs = ((1 + strength) * good - strength * bad).softmax(-1)
            expected = probs[np.arange(len(response.ids)), response.ids].numpy()
            assert ours.scores.dtype == np.float32
            np.testing.assert_allclose(ours.scores, expected, atol=1e-5)
            assert (ours.scores >= 0).all()
            assert (ours.scores <= 1).all()


def test_blocks_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scored("llama")
    monkeypatch.setattr("pipeline.weights.sources.critical.POSITIONS_AT_ONCE", 3)
    for budget in (1, 40, 1000):
        for one, other in zip(whole, scored("llama", budget=budget), strict=True):
            np.testing.assert_allclose(one.chosen.scores, other.chosen.scores, atol=1e-6)
            np.testing.assert_allclose(one.rejected.scores, other.rejected.scores, atol=1e-6)


def test_of_two_equal_models_it_is_their_probability() -> None:
    for one, other in zip(scored("llama", 3.0, seed=0), scored("llama", 0.0, seed=0), strict=True):
        np.testing.assert_allclose(one.rejected.scores, other.rejected.scores, atol=1e-6)


def test_models_of_different_vocabularies_are_refused() -> None:
    config = LlamaConfig(
        vocab_size=61, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
    )
    other = LogProbModel(LlamaForCausalLM(config))
    with pytest.raises(ModelError, match="97 words and the negative one 61"):
        CriticalSource(LogProbModel(tiny.model("llama")), other, CriticalScores(), tiny.budget(100))


def test_a_score_that_is_not_finite_names_the_pair() -> None:
    broken = tiny.model("llama", seed=1)
    with torch.no_grad():
        broken.lm_head.weight.fill_(float("nan"))
    source = CriticalSource(LogProbModel(tiny.model("llama")), LogProbModel(broken), CriticalScores(), tiny.budget(1))
    with pytest.raises(NonFiniteError, match=r"pair [a-d]: .* score\.dtype"):
        source.run(pairs(), ignore)

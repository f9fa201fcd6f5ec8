"""Saliency against autograd through transformers' eager attention, one sequence at a time, in double precision."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.config.score import GradientScores
from pipeline.errors import NonFiniteError
from pipeline.models.logps import LogProbModel
from pipeline.models.scoring import SUPPORTED_MODEL_TYPES
from pipeline.weights.sources.base import PairScores
from pipeline.weights.sources.gradient import GradientSource
from tests.models import tiny
from tests.weights.sources.examples import all_scored, exact, ignore, pairs, sequence_ids

TARGETS = ("last_response_token", "after_last", "sequence")


def scored(kind: str, budget: int = 30, dtype: torch.dtype = torch.float32, **params: Any) -> list[PairScores]:
    source = GradientSource(LogProbModel(tiny.model(kind, dtype)), GradientScores(**params), tiny.budget(budget))
    return all_scored(source.run(pairs(), ignore))


def target_of(logits: Tensor, ids: Tensor, prompt: int, target: str) -> Tensor:
    """METHODS 3.1 and 3.2, of one sequence: logits [N, V], ids [N]."""
    if target == "last_response_token":
        return logits[-2].max()
    if target == "after_last":
        return logits[-1].max()
    return logits[prompt - 1 : -1].log_softmax(-1).gather(-1, ids[prompt:, None]).sum()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", SUPPORTED_MODEL_TYPES)
def test_equals_the_gradient_of_single_sequences_in_float64(kind: str, target: str) -> None:
    model = exact(kind)
    for pair, found in zip(pairs(), scored(kind, target=target), strict=True):
        prompt = len(pair.prompt_ids)
        for response, ours in zip(pair.responses, (found.chosen, found.rejected), strict=True):
            ids = sequence_ids(pair.prompt_ids, response)
            leaf = model.get_input_embeddings()(ids).detach().requires_grad_()
            value = target_of(model(inputs_embeds=leaf, use_cache=False).logits[0], ids[0], prompt, target)
            expected = torch.autograd.grad(value, leaf)[0][0].abs().sum(-1).numpy()
            assert ours.scores.dtype == np.float32
            largest = expected.max()
            np.testing.assert_allclose(ours.scores, expected[prompt:], rtol=1e-4, atol=1e-5 * largest)
            assert ours.prompt_score == pytest.approx(expected[:prompt].sum(), rel=1e-4)
            assert largest > 0


@pytest.mark.parametrize("target", TARGETS)
def test_equals_a_right_padded_batch_of_transformers(target: str) -> None:
    """Padding has no influence there, and padded rows have the scores of ours."""
    model = exact("llama")
    rows = [(pair.prompt_ids, response) for pair in pairs() for response in pair.responses]
    ids = torch.nn.utils.rnn.pad_sequence([sequence_ids(*row)[0] for row in rows], batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(sequence_ids(*row)[0]) for row in rows], batch_first=True)
    leaf = model.get_input_embeddings()(ids).detach().requires_grad_()
    logits = model(inputs_embeds=leaf, attention_mask=mask, use_cache=False).logits
    ends = mask.sum(-1).tolist()
    values = [
        target_of(of_row[:end], row_ids[:end], len(row[0]), target)
        for of_row, row_ids, row, end in zip(logits, ids, rows, ends, strict=True)
    ]
    (gradient,) = torch.autograd.grad(torch.stack(values).sum(), leaf)
    saliency = gradient.abs().sum(-1).numpy()
    assert not saliency[mask.numpy() == 0].any()
    ours = [response for pair in scored("llama", target=target) for response in (pair.chosen, pair.rejected)]
    for number, (row, end, found) in enumerate(zip(rows, ends, ours, strict=True)):
        expected = saliency[number, len(row[0]) : end]
        np.testing.assert_allclose(found.scores, expected, rtol=1e-4, atol=1e-5 * saliency[number].max())


@pytest.mark.parametrize("target", TARGETS)
def test_the_last_token_moves_only_what_follows_it(target: str) -> None:
    for pair in scored("qwen2", target=target):
        for response in (pair.chosen, pair.rejected):
            assert (response.scores[-1] > 0) == (target == "after_last")
            assert (response.scores[:-1] > 0).all()
            assert response.prompt_score > 0


@pytest.mark.parametrize("target", TARGETS)
def test_other_pairs_in_a_row_change_nothing(target: str) -> None:
    alone = scored("mistral", budget=1, target=target)
    model = LogProbModel(tiny.model("mistral"))
    for budget in (25, 60, 1000):
        source = GradientSource(model, GradientScores(target=target), tiny.budget(budget))
        backwards = all_scored(source.run(pairs()[::-1], ignore))[::-1]
        for one, other in zip(alone, backwards, strict=True):
            np.testing.assert_allclose(one.chosen.scores, other.chosen.scores, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(one.rejected.scores, other.rejected.scores, rtol=1e-4, atol=1e-6)
            assert one.rejected.prompt_score == pytest.approx(other.rejected.prompt_score, rel=1e-4)


def test_the_euclidean_norm() -> None:
    for one, other in zip(scored("llama"), scored("llama", norm=2), strict=True):
        assert (other.chosen.scores[:-1] < one.chosen.scores[:-1]).all()
        assert (one.chosen.scores <= np.sqrt(32) * other.chosen.scores * (1 + 1e-5)).all()


def test_weights_get_no_gradient_and_the_model_is_left_as_it_was() -> None:
    model = LogProbModel(tiny.model("llama"))
    GradientSource(model, GradientScores(target="sequence"), tiny.budget(100)).run(pairs(), ignore)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())
    embeddings = model.model.get_input_embeddings()
    assert not embeddings(torch.tensor([[1]])).requires_grad


def test_bfloat16_models_give_float32_scores() -> None:
    both = [scored("llama", dtype=dtype, target="sequence") for dtype in (torch.float32, torch.bfloat16)]
    for exactly, roughly in zip(*both, strict=True):
        assert roughly.chosen.scores.dtype == np.float32
        error = np.linalg.norm(roughly.rejected.scores - exactly.rejected.scores)
        assert error <= 0.2 * np.linalg.norm(exactly.rejected.scores)


def test_every_pair_and_token_is_reported() -> None:
    seen: list[tuple[int, int]] = []
    source = GradientSource(LogProbModel(tiny.model("llama")), GradientScores(), tiny.budget(40))
    source.run(pairs(), lambda done, tokens: seen.append((done, tokens)))
    assert len(seen) > 1
    expected = sum(2 * len(pair.prompt_ids) + len(pair.chosen.ids) + len(pair.rejected.ids) for pair in pairs())
    assert [sum(column) for column in zip(*seen, strict=True)] == [len(pairs()), expected]


def test_a_score_that_is_not_finite_names_the_pair() -> None:
    model = tiny.model("qwen2")
    with torch.no_grad():
        model.get_input_embeddings().weight[2] = float("nan")
    broken = replace(pairs()[2].rejected, ids=np.append(pairs()[2].rejected.ids, 2))
    given = [*pairs()[:2], replace(pairs()[2], rejected=broken), pairs()[3]]
    with pytest.raises(NonFiniteError, match=r"pair c: .* rejected response .* score\.dtype"):
        GradientSource(LogProbModel(model), GradientScores(target="after_last"), tiny.budget(1000)).run(given, ignore)

"""Rows that do not fit the memory: half the budget, the same numbers, nothing computed twice that was done."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config.score import CriticalScores, GradientScores
from pipeline.errors import ModelError
from pipeline.evaluate.divergence import score_responses
from pipeline.models.logps import LogProbModel
from pipeline.models.packed.layout import Prompted
from pipeline.models.response_logps import response_logps
from pipeline.weights.sources.critical import CriticalSource
from pipeline.weights.sources.gradient import GradientSource
from tests.models import tiny
from tests.weights.sources.examples import all_scored, ignore, pairs

ERRORS = (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory"))
Scorer = Callable[[LogProbModel, Any], list[np.ndarray]]


def items() -> list[Prompted]:
    return [Prompted(pair.prompt_ids, [response.ids for response in pair.responses]) for pair in pairs()]


def by_log_probs(model: LogProbModel, budget: Any) -> list[np.ndarray]:
    return [part for of_item in response_logps(model, items(), budget) for part in of_item]


def by_divergence(model: LogProbModel, budget: Any) -> list[np.ndarray]:
    other = LogProbModel(tiny.model("llama", seed=1))
    return [part.kl_forward for of_item in score_responses(model, other, items(), budget) for part in of_item]


def by_gradient(model: LogProbModel, budget: Any) -> list[np.ndarray]:
    found = all_scored(GradientSource(model, GradientScores(), budget).run(pairs(), ignore))
    return [part.scores for pair in found for part in (pair.chosen, pair.rejected)]


def by_criticality(model: LogProbModel, budget: Any) -> list[np.ndarray]:
    other = LogProbModel(tiny.model("llama", seed=1))
    found = all_scored(CriticalSource(model, other, CriticalScores(), budget).run(pairs(), ignore))
    return [part.scores for pair in found for part in (pair.chosen, pair.rejected)]


SCORERS = (by_log_probs, by_divergence, by_gradient, by_criticality)


def scarce(limit: int, error: RuntimeError) -> LogProbModel:
    """A model that has memory for rows of so many tokens."""
    model = tiny.model("llama")

    def refuse(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
        taken = kwargs["inputs_embeds"] if kwargs.get("input_ids") is None else kwargs["input_ids"]
        if taken.shape[1] > limit:
            raise error

    model.base_model.register_forward_pre_hook(refuse, with_kwargs=True)
    return LogProbModel(model)


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("error", ERRORS)
def test_half_the_budget_gives_the_same(scorer: Scorer, error: RuntimeError, caplog: pytest.LogCaptureFixture) -> None:
    expected = scorer(LogProbModel(tiny.model("llama")), tiny.budget(1000))
    budget = tiny.budget(200)
    with caplog.at_level(logging.WARNING):
        found = scorer(scarce(30, error), budget)
        said = [record.message for record in caplog.records]
        assert len(said) >= 2
        assert "going on with a token budget of 100; set runtime.token_budget" in said[0]
        scorer(scarce(30, error), budget)
        assert len(caplog.records) == len(said), "a budget that was halved stays so"
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scorer", SCORERS)
def test_an_item_that_does_not_fit_alone_is_said(scorer: Scorer) -> None:
    with pytest.raises(ModelError, match=r"a prompt and its responses, \d+ tokens, do not fit the memory of cpu even"):
        scorer(scarce(5, ERRORS[0]), tiny.budget(200))


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match="another one"):
        by_log_probs(scarce(5, RuntimeError("another one")), tiny.budget(200))


def test_what_is_done_is_reported_once() -> None:
    told: list[tuple[int, int]] = []
    response_logps(scarce(30, ERRORS[0]), items(), tiny.budget(200), on_progress=lambda *done: told.append(done))
    tokens = sum(len(item.prompt_ids) + sum(map(len, item.responses)) for item in items())
    assert [sum(column) for column in zip(*told, strict=True)] == [len(items()), tokens]

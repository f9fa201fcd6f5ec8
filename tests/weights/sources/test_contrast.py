"""The contrast of two models against whole log-probs in double precision; prompts with a system text."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from pipeline.errors import NonFiniteError
from pipeline.models.logps import LogProbModel
from pipeline.weights.sources.base import NotScored, SourcePair
from pipeline.weights.sources.contrast import ContrastSource
from tests.models import tiny
from tests.weights.sources.examples import all_scored, exact, ignore, pairs, response_log_probs


def longer(pair: SourcePair) -> Sequence[int]:
    return [5, 6, 7, *pair.prompt_ids]


def shorter(pair: SourcePair) -> Sequence[int]:
    return [8, *pair.prompt_ids[-2:]]


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("budget", [1, 30, 1000])
def test_equals_the_difference_of_log_probs_in_float64(budget: int, share: bool) -> None:
    source = ContrastSource(
        LogProbModel(tiny.model("qwen2")),
        LogProbModel(tiny.model("qwen2", seed=1)),
        tiny.budget(budget),
        share,
        longer,
        shorter,
    )
    positive, negative = exact("qwen2"), exact("qwen2", 1)
    for pair, found in zip(pairs(), all_scored(source.run(pairs(), ignore)), strict=True):
        for response, ours in zip(pair.responses, (found.chosen, found.rejected), strict=True):
            places = np.arange(len(response.ids)), response.ids
            expected = (
                response_log_probs(positive, longer(pair), response)[places]
                - response_log_probs(negative, shorter(pair), response)[places]
            )
            assert ours.scores.dtype == np.float32
            np.testing.assert_allclose(ours.scores, expected.numpy(), atol=1e-4)
            assert ours.prompt_score == 0


def test_without_prompts_both_read_the_trained_one() -> None:
    source = ContrastSource(
        LogProbModel(tiny.model("llama")), LogProbModel(tiny.model("llama", seed=1)), tiny.budget(100)
    )
    positive, negative = exact("llama"), exact("llama", 1)
    for pair, found in zip(pairs(), all_scored(source.run(pairs(), ignore)), strict=True):
        places = np.arange(len(pair.chosen.ids)), pair.chosen.ids
        both = [response_log_probs(model, pair.prompt_ids, pair.chosen)[places] for model in (positive, negative)]
        np.testing.assert_allclose(found.chosen.scores, (both[0] - both[1]).numpy(), atol=1e-4)


def test_a_model_has_no_contrast_with_itself() -> None:
    model = LogProbModel(tiny.model("llama"))
    for found in all_scored(ContrastSource(model, model, tiny.budget(100)).run(pairs(), ignore)):
        assert not found.chosen.scores.any()
        assert not found.rejected.scores.any()


def test_a_pair_without_a_prompt_is_refused_and_the_others_keep_their_place() -> None:
    model, other = LogProbModel(tiny.model("llama")), LogProbModel(tiny.model("llama", seed=1))
    refusal = NotScored("no_room", "0 tokens")

    def all_but_b(pair: SourcePair) -> Sequence[int] | NotScored:
        return refusal if pair.pair_id == "b" else list(pair.prompt_ids)

    whole = ContrastSource(model, other, tiny.budget(100)).run(pairs(), ignore)
    seen: list[tuple[int, int]] = []
    found = ContrastSource(model, other, tiny.budget(100), negative_prompts=all_but_b).run(
        pairs(), lambda *done: seen.append(done)
    )
    assert found[1] is refusal
    assert sum(done for done, _ in seen) == len(pairs())
    for index in (0, 2, 3):
        (mine,), (theirs,) = all_scored(found[index : index + 1]), all_scored(whole[index : index + 1])
        np.testing.assert_allclose(mine.rejected.scores, theirs.rejected.scores, atol=1e-5)
    assert ContrastSource(model, other, tiny.budget(100), positive_prompts=all_but_b).run(pairs()[1:2], ignore) == [
        refusal
    ]


def test_a_score_that_is_not_finite_names_the_pair() -> None:
    broken = tiny.model("llama", seed=1)
    with torch.no_grad():
        broken.lm_head.weight.fill_(float("nan"))
    source = ContrastSource(LogProbModel(tiny.model("llama")), LogProbModel(broken), tiny.budget(100))
    with pytest.raises(NonFiniteError, match=r"pair a: .* chosen response .* score\.dtype"):
        source.run(pairs(), ignore)

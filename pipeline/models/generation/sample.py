"""Sampling with temperature, top-k and top-p, whose draws belong to a pair and not to a batch."""

from collections.abc import Collection, Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from pipeline.config.third import ThirdParams
from pipeline.models.budget import TokenBudget
from pipeline.models.generation.base import OnAnswers
from pipeline.models.generation.batches import TransformersGenerator


def sample_responses(
    model: PreTrainedModel,
    stops: Collection[int],
    prompts: Sequence[Sequence[int]],
    pair_ids: Sequence[str],
    params: ThirdParams,
    budget: TokenBudget,
    on_answers: OnAnswers | None = None,
) -> list[list[int]]:
    """One sampled response to each prompt, with the end of turn where it ended by itself; never without a token.

    What is drawn depends on `params.seed` and the pair's id, so neither the other prompts nor their order matter beyond
    the last bits of the logits. The model must attend as it was loaded (see `TransformersGenerator`).

    Raises ModelError, naming the pair, for a prompt that leaves no room in the model's context.
    """

    def choose(logits: Tensor, rows: Sequence[int], step: int) -> list[int]:
        kept = candidates(logits, params)
        return [
            int(tokens[draw(probabilities, uniform(params.seed, pair_ids[row], step))])
            for row, (tokens, probabilities) in zip(rows, kept, strict=True)
        ]

    generator = TransformersGenerator(model, stops, params.max_new_tokens, budget, choose)
    names = [f"pair {pair_id}" for pair_id in pair_ids]
    answers = generator.answers(prompts, names, on_answers)
    return [answer.ids if answer.stop is None else [*answer.ids, answer.stop] for answer in answers]


def candidates(logits: Tensor, params: ThirdParams) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """For each row of logits [n, V] float32, the tokens that can be drawn and their probabilities, which sum to 1.

    Temperature, then top-k, then top-p of what top-k left, as transformers' logits warpers do one after the other: of
    several tokens with the k-th largest logit, all stay. Likeliest first, of equal ones the lower id, so that a draw is
    the same token on every device.
    """
    scores = logits / params.temperature
    count = scores.shape[-1]
    if params.top_k is not None and params.top_k < count:
        kth = scores.topk(params.top_k).values[:, -1:]
        count = int((scores >= kth).sum(dim=-1).max())
        scores = scores.masked_fill(scores < kth, float("-inf"))
    values, tokens = (found.cpu().numpy() for found in scores.topk(count))
    kept = []
    for row_values, row_tokens in zip(values.astype(np.float64), tokens, strict=True):
        order = np.lexsort((row_tokens, -row_values))
        weights = np.exp(row_values[order] - row_values.max())
        probabilities = weights / weights.sum()
        before = probabilities.cumsum() - probabilities
        # The first token has nothing before it, so one always stays.
        stays = (before < params.top_p) & (probabilities > 0)
        kept.append((row_tokens[order][stays], probabilities[stays] / probabilities[stays].sum()))
    return kept


def draw(probabilities: NDArray[np.float64], at: float) -> int:
    """The index whose share of [0, 1) holds `at`; the shares lie side by side in the order given."""
    ends = probabilities.cumsum()
    return min(int(np.searchsorted(ends, at, side="right")), len(ends) - 1)


def uniform(seed: int, pair_id: str, step: int) -> float:
    """A number in [0, 1), the same for the same arguments on every machine and in every version of a library."""
    digest = sha256(f"{seed} {pair_id} {step}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53

"""Pairs of random tokens, and what transformers' own eager attention makes of them in double precision."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from pipeline.weights.sources.base import NotScored, PairScores, SourcePair, SourceResponse
from tests.models import tiny

VOCABULARY = 97


def response(random: np.random.Generator, tokens: int) -> SourceResponse:
    return SourceResponse(
        text="x" * tokens,
        ids=random.integers(3, VOCABULARY, tokens),
        offsets=np.array([[i, i + 1] for i in range(tokens)]),
        eos=True,
    )


def pairs() -> list[SourcePair]:
    """Of several lengths, beyond the sliding windows of 5 of the tiny models."""
    random = np.random.default_rng(0)
    shapes = {"a": (4, 8, 3), "b": (1, 1, 2), "c": (7, 2, 11), "d": (3, 5, 5)}
    return [
        SourcePair(
            pair_id=name,
            messages=[{"role": "user", "content": "x"}],
            prompt_ids=random.integers(3, VOCABULARY, prompt),
            chosen=response(random, chosen),
            rejected=response(random, rejected),
        )
        for name, (prompt, chosen, rejected) in shapes.items()
    ]


def exact(kind: str, seed: int = 0) -> PreTrainedModel:
    """The tiny model in double precision, with transformers' eager attention."""
    model = tiny.model(kind, torch.float64, seed)
    model.set_attn_implementation("eager")
    return model.requires_grad_(False)


def sequence_ids(prompt: Sequence[int] | np.ndarray, of: SourceResponse) -> Tensor:
    """[1, P + T]"""
    return torch.from_numpy(np.concatenate([np.asarray(prompt, np.int64), of.ids]))[None]


def response_log_probs(model: PreTrainedModel, prompt: Sequence[int] | np.ndarray, of: SourceResponse) -> Tensor:
    """[T, V]: of the whole vocabulary where each token of the response is predicted."""
    with torch.no_grad():
        logits = model(sequence_ids(prompt, of), use_cache=False).logits[0]
    return logits[len(prompt) - 1 : -1].log_softmax(-1)


def all_scored(found: Sequence[PairScores | NotScored]) -> list[PairScores]:
    """The same, none of them refused."""
    scored = [pair for pair in found if isinstance(pair, PairScores)]
    assert len(scored) == len(found)
    return scored


def ignore(pairs: int, tokens: int) -> None:
    """Where progress does not matter."""

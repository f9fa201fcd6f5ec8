"""Responses as sources of weights see them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.weights.trained.tokens import ScoredTokens


def tokens(scores: Sequence[float] | np.ndarray, **changed: Any) -> ScoredTokens:
    """A preferred response with these scores that ends its turn, after a prompt of 5 tokens."""
    given: dict[str, Any] = {
        "tokens": len(scores),
        "eos": True,
        "preferred": True,
        "prompt_tokens": 5,
        "scores": np.asarray(scores, np.float64),
        "prompt_score": 0.0,
        "pair_id": "a",
        "response": "chosen",
    }
    return ScoredTokens(**given | changed)

"""Scores leave a source as finite float32, or not at all."""

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import NonFiniteError
from pipeline.weights.sources.base import PairScores, ResponseScores, SourcePair


def pair_scores(
    pair: SourcePair,
    scores: tuple[NDArray[np.floating], NDArray[np.floating]],
    prompt_scores: tuple[float, float] = (0.0, 0.0),
) -> PairScores:
    """Scores [T] of the chosen and of the rejected response. Raises NonFiniteError that names pair and response."""
    made = []
    for name, of_response, of_prompt in zip(("chosen", "rejected"), scores, prompt_scores, strict=True):
        if not (np.isfinite(of_response).all() and np.isfinite(of_prompt)):
            raise NonFiniteError(
                f"pair {pair.pair_id}: a raw score of its {name} response is not finite; a model that overflows in"
                " bfloat16 needs score.dtype: float32"
            )
        made.append(ResponseScores(of_response.astype(np.float32, copy=False), of_prompt))
    return PairScores(*made)

"""Raw scores of two judge rounds to the weights a_t of AttentionPO (sections 2.5 and 2.6)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.config.postprocess import PostprocessParams
from pipeline.errors import DataError, NonFiniteError
from pipeline.weights.rounds import combine_rounds
from pipeline.weights.sink import fix_sink

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ResponseWeights:
    """Weights of the n tokens of one response in judge context; both arrays sum to 1."""

    with_sink: FloatArray
    """float64 [n], before Eq. 14: what the statistics compare with."""
    weights: NDArray[np.float32]
    """float32 [n], a_t: what is stored and trained with."""


def response_weights(
    round_1: ArrayLike, round_2: ArrayLike, params: PostprocessParams, *, pair_id: str, response: str
) -> ResponseWeights:
    """The weights of one response from its raw scores [n] in round 1 and round 2, computed in float64.

    ``pair_id`` and ``response`` (``chosen`` or ``rejected``) are for messages. Raises :class:`NonFiniteError` for a NaN
    or infinite score, and :class:`DataError` for a negative one, no tokens, or rounds of different lengths.
    """
    where = f"pair {pair_id}, {response} response"
    scores_1 = _checked_scores(round_1, f"{where}, round 1")
    scores_2 = _checked_scores(round_2, f"{where}, round 2")
    if len(scores_1) != len(scores_2):
        raise DataError(
            f"{where}: {len(scores_1)} scores in round 1 but {len(scores_2)} in round 2; both rounds must cover the "
            "same tokens, so the attention shard is damaged: remove it and run extract again"
        )
    with_sink = combine_rounds(scores_1, scores_2, params.rounds)
    fixed = fix_sink(with_sink, params.sink_tokens, params.sink_min_tokens)
    return ResponseWeights(with_sink=with_sink, weights=fixed.astype(np.float32))


def _checked_scores(scores: ArrayLike, where: str) -> FloatArray:
    checked = np.asarray(scores, dtype=np.float64)
    if checked.ndim != 1 or len(checked) == 0:
        raise DataError(f"{where}: expected one score per token and at least one token, got shape {checked.shape}")
    if not np.isfinite(checked).all():
        position = int(np.flatnonzero(~np.isfinite(checked))[0])
        raise NonFiniteError(
            f"{where}: the score of token {position} is {checked[position]}; the judge model overflowed: run extract "
            "with a wider dtype (bfloat16 or float32)"
        )
    if checked.min() < 0:
        position = int(checked.argmin())
        raise DataError(
            f"{where}: the score of token {position} is {checked[position]}; attention scores are never negative, so "
            "the attention shard is damaged: remove it and run extract again"
        )
    return checked

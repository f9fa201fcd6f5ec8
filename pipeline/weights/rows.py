"""Weights and statistics of the responses of one shard, in the order of its rows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config.postprocess import PostprocessParams
from pipeline.errors import DataError
from pipeline.weights.postprocess import response_weights
from pipeline.weights.stats import WeightStatistics


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredResponse:
    """One row of raw scores: a response in judge context, n tokens."""

    pair_id: str
    response: str
    """``chosen`` or ``rejected``."""
    token_ids: NDArray[np.integer]
    round_1: NDArray[np.floating]
    round_2: NDArray[np.floating]


def postprocess_rows(
    rows: Iterable[ScoredResponse], params: PostprocessParams, statistics: dict[str, WeightStatistics]
) -> Iterator[NDArray[np.float32]]:
    """Yield the weights a_t [n] of every row and count it in ``statistics[row.response]``."""
    for row in rows:
        result = response_weights(row.round_1, row.round_2, params, pair_id=row.pair_id, response=row.response)
        if len(row.token_ids) != len(result.weights):
            raise DataError(
                f"pair {row.pair_id}, {row.response} response: {len(row.token_ids)} token ids but "
                f"{len(result.weights)} scores; the attention shard is damaged: remove it and run extract again"
            )
        statistics[row.response].add(row.token_ids, result.with_sink, result.weights)
        yield result.weights

"""`data/attention/{split}/` and `data/verdicts/{split}/`, written by `extract`."""

import pyarrow as pa

from pipeline.schemas.base import FLOATS, OFFSETS, TOKEN_IDS, column

ROLLOUT = -1
"""In the place of a layer: the product of all of them (paper 4.2)."""
MEAN_OVER_HEADS = -1
"""In the place of a head: the mean over all of them (paper 2.5)."""

ATTENTION = pa.schema(
    [
        column("pair_id", pa.string(), "as in `pairs`"),
        column("response", pa.string(), "chosen or rejected"),
        column("source", pa.string(), "attention or rollout"),
        column("layer", pa.int16(), "0-based; -1 for rollout"),
        column("head", pa.int16(), "0-based; -1 for the mean over heads"),
        column("token_ids", TOKEN_IDS, "the response's tokens in the judge's context (round 1)"),
        column("offsets", OFFSETS, "the characters of the response that each token covers"),
        column("round_1", FLOATS, "raw score of the query position to each token, chosen shown as answer A"),
        column("round_2", FLOATS, "the same, rejected shown as answer A"),
    ]
)

VERDICTS = pa.schema(
    [
        column("pair_id", pa.string(), "as in `pairs`"),
        column("round", pa.int8(), "1: chosen is answer A; 2: rejected is answer A"),
        column("prob_a", pa.float32(), "probability of the token A, softmax over the whole vocabulary"),
        column("prob_b", pa.float32(), "probability of the token B"),
        column("verdict", pa.string(), "A or B, the more probable; A on a tie"),
        column("top_token", pa.int32(), "the most probable token of all", nullable=True),
    ]
)

"""`data/weights/{split}/`, written by `postprocess`: one row per pair and response."""

import pyarrow as pa

from pipeline.schemas.base import FLOATS, OFFSETS, TOKEN_IDS, column

WEIGHTS = pa.schema(
    [
        column("pair_id", pa.string(), "as in `pairs`"),
        column("response", pa.string(), "chosen or rejected"),
        column("token_ids", TOKEN_IDS, "the response's tokens in the judge's context"),
        column("offsets", OFFSETS, "the characters of the response that each token covers"),
        column("weights", FLOATS, "a_t of the paper: not negative, sum 1 over the response"),
    ]
)

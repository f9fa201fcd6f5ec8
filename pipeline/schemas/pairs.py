"""`data/pairs/{split}.parquet`, written by `prepare`."""

import pyarrow as pa

from pipeline.schemas.base import column

MESSAGE = pa.struct([pa.field("role", pa.string(), nullable=False), pa.field("content", pa.string(), nullable=False)])

PAIRS = pa.schema(
    [
        column("pair_id", pa.string(), "sha256 (hex) of context, chosen and rejected"),
        column("prompt", pa.list_(pa.field("element", MESSAGE, nullable=False)), "every turn before the answer"),
        column("chosen", pa.string(), "the preferred answer, as stored in the source"),
        column("rejected", pa.string(), "the dispreferred answer, as stored in the source"),
        column("score_chosen", pa.float64(), "the source's score of the chosen answer", nullable=True),
        column("score_rejected", pa.float64(), "the source's score of the rejected answer", nullable=True),
        column("gold", pa.string(), "a third, best answer, where the source has one", nullable=True),
        column("source", pa.string(), "where the row comes from: file or hub id, split, row number"),
    ]
)

"""`data/refused/{stage}.parquet`: the pairs that a stage could not use, and why. Never their text."""

import pyarrow as pa

from pipeline.schemas.base import column

REFUSED = pa.schema(
    [
        column("split", pa.string(), "train, validation or test; for `prepare`: the source split, train or test"),
        column("row", pa.int64(), "0-based position in `pairs`; for `prepare`: row of the source file"),
        column("pair_id", pa.string(), "as in `pairs`; empty where `prepare` could not form one"),
        column("reason", pa.string(), "a short fixed word, such as `empty_response`"),
        column("detail", pa.string(), "field names and counts that help to find the cause"),
    ]
)

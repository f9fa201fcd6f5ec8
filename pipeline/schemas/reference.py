"""`data/reference/{split}/`, written by `reference`: one row per pair, in the order of `tokens`."""

import pyarrow as pa

from pipeline.schemas.base import FLOATS, column

REFERENCE = pa.schema(
    [
        column("pair_id", pa.string(), "as in `pairs`"),
        column("chosen_logps", FLOATS, "log pi_ref of each id of tokens.chosen_ids"),
        column("rejected_logps", FLOATS, "log pi_ref of each id of tokens.rejected_ids"),
        column("gold_logps", FLOATS, "log pi_ref of each id of tokens.gold_ids", nullable=True),
    ]
)

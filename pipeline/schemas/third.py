"""`data/third/{split}/`, written by `third`: one row per pair, in the order of `tokens`."""

import pyarrow as pa

from pipeline.schemas.base import FLOATS, TOKEN_IDS, column

THIRD = pa.schema(
    [
        column("pair_id", pa.string(), "as in `pairs`"),
        column("third_ids", TOKEN_IDS, "tokens of the response that follows the prompt beside chosen and rejected"),
        column("third_logps", FLOATS, "log pi_ref of each of them; none of a gold response", nullable=True),
    ]
)

"""`data/judge/{split}/`, written by `render`: one row per pair and round."""

import pyarrow as pa

from pipeline.schemas.base import OFFSETS, TOKEN_IDS, column

JUDGE = pa.schema(
    [
        column("pair_id", pa.string(), "as in `pairs`"),
        column("round", pa.int8(), "1: chosen is answer A; 2: rejected is answer A"),
        column("input_ids", TOKEN_IDS, "the judge prompt as one user turn of the judge's chat template"),
        column("chosen_start", pa.int32(), "first token of the chosen response in input_ids"),
        column("chosen_end", pa.int32(), "one past its last token"),
        column("rejected_start", pa.int32(), "first token of the rejected response in input_ids"),
        column("rejected_end", pa.int32(), "one past its last token"),
        column("chosen_offsets", OFFSETS, "per span token the characters of pairs.chosen that it covers"),
        column("rejected_offsets", OFFSETS, "per span token the characters of pairs.rejected that it covers"),
        column("chosen_cut", pa.int32(), "tokens of the chosen response lost to truncation"),
        column("rejected_cut", pa.int32(), "tokens of the rejected response lost to truncation"),
        column("prompt_cut", pa.int32(), "tokens of the question lost to truncation"),
    ]
)

"""`data/scores/{split}/`, written by `score`: one row per pair, in the order of `tokens`."""

import pyarrow as pa

from pipeline.schemas.base import FLOATS, RESPONSES, column


def _response(name: str) -> list[pa.Field]:
    return [
        column(f"{name}_scores", FLOATS, f"raw score of each trained token, as long as tokens.{name}_ids"),
        column(f"{name}_prompt_score", pa.float32(), "sum of the prompt's raw scores, where the source scores prompts"),
    ]


SCORES = pa.schema(
    [column("pair_id", pa.string(), "as in `pairs`"), *(field for name in RESPONSES for field in _response(name))]
)

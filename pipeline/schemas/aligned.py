"""`data/aligned/{split}/`, written by `realign`: one row per pair, in the order of `tokens`."""

import pyarrow as pa

from pipeline.schemas.base import FLOATS, RESPONSES, column


def _response(name: str) -> list[pa.Field]:
    return [
        column(f"{name}_weights", FLOATS, f"weight of each trained token, as long as tokens.{name}_ids"),
        column(f"{name}_length", pa.float32(), "|y| of Eq. 5; 1 for weights that are not of sum 1"),
        column(
            f"{name}_matched_tokens",
            pa.float32(),
            "share of the trained tokens, end of turn excluded, that the judge's tokens match; 1 without a judge",
        ),
        column(f"{name}_matched_mass", pa.float32(), "share of the judge's weight that reaches a trained token"),
    ]


ALIGNED = pa.schema(
    [
        column("pair_id", pa.string(), "as in `pairs`"),
        column("flipped", pa.bool_(), "training takes chosen for rejected, and rejected for chosen"),
        *(field for name in RESPONSES for field in _response(name)),
    ]
)

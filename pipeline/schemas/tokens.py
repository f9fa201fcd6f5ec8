"""`data/tokens/{split}/`, written by `tokenize`: one row per pair, exactly what is trained on."""

import pyarrow as pa

from pipeline.schemas.base import OFFSETS, RESPONSES, TOKEN_IDS, column

TRAINED = (*RESPONSES, "gold")
"""Responses that a pair may be trained on; the third only where the data has one."""


def _response(name: str, nullable: bool = False) -> list[pa.Field]:
    return [
        column(f"{name}_ids", TOKEN_IDS, f"tokens of the {name} response, end of turn included if trained", nullable),
        column(
            f"{name}_offsets", OFFSETS, f"characters of pairs.{name} per token; zero-width at the end of turn", nullable
        ),
        column(f"{name}_eos", pa.bool_(), "the last id is the end of turn", nullable),
        column(f"{name}_cut", pa.int32(), "tokens lost to truncation, the end of turn not counted", nullable),
    ]


TOKENS = pa.schema(
    [
        column("pair_id", pa.string(), "as in `pairs`"),
        column("prompt_ids", TOKEN_IDS, "the context in the policy's chat template, up to where the answer begins"),
        column("prompt_cut", pa.int32(), "tokens of the context lost to truncation, from its left"),
        *_response("chosen"),
        *_response("rejected"),
        *_response("gold", nullable=True),
    ]
)

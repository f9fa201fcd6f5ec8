"""Building blocks of the artifacts' schemas."""

import pyarrow as pa

VERSION = 2
"""Of all schemas together: raised by any change of a column or of how shards are written; it is part of every key."""

SPLITS = ("train", "validation", "test")
RESPONSES = ("chosen", "rejected")

TOKEN_IDS = pa.list_(pa.field("element", pa.int32(), nullable=False))
FLOATS = pa.list_(pa.field("element", pa.float32(), nullable=False))
SPAN = pa.struct([pa.field("start", pa.int32(), nullable=False), pa.field("end", pa.int32(), nullable=False)])
OFFSETS = pa.list_(pa.field("element", SPAN, nullable=False))


def column(name: str, kind: pa.DataType, meaning: str, nullable: bool = False) -> pa.Field:
    """A column that carries its meaning; read back by `schema.field(name).metadata[b"meaning"]`."""
    return pa.field(name, kind, nullable=nullable, metadata={"meaning": meaning})

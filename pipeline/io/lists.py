"""List columns as numpy arrays and back, without a Python object per element."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def arrays_of(column: pa.ChunkedArray) -> list[NDArray[Any]]:
    """One array per row: [n] for lists of numbers, [n, 2] for lists of spans.

    They are views into one buffer, not to be written to. Raises ValueError on a null row.
    """
    rows: list[NDArray[Any]] = []
    for chunk in column.chunks:
        if chunk.null_count:
            raise ValueError("a null list has no array; drop null rows first")
        values = chunk.values
        if pa.types.is_struct(values.type):
            flat = np.stack([values.field(name).to_numpy() for name in ("start", "end")], axis=1)
        else:
            flat = values.to_numpy()
        rows += [flat[begin:end] for begin, end in pairwise(chunk.offsets.to_numpy())]
    return rows


def list_array(rows: Sequence[NDArray[Any]], kind: pa.ListType) -> pa.ListArray:
    """Rows [n] of numbers as a list array of the given type."""
    ends = np.zeros(len(rows) + 1, dtype=np.int32)
    np.cumsum([len(row) for row in rows], out=ends[1:])
    flat = np.concatenate(rows) if rows else np.zeros(0)
    values = pa.array(flat.astype(kind.value_type.to_pandas_dtype()), kind.value_type)
    return pa.ListArray.from_arrays(pa.array(ends), values).cast(kind)

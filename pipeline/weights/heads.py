"""The mean over attention heads: of the heads of one layer that were cached, those that are chosen."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import DataError

SCORES = ("round_1", "round_2")
_REMEDY = "so the attention shard is damaged: remove it and run extract again"


def mean_over_heads(table: pa.Table, layer: int, heads: Sequence[int]) -> pa.Table:
    """One row per pair and response, in the order of ``table``: the rows of ``layer``, averaged over ``heads``.

    ``table``: rows of `data/attention/`, where the K rows of the heads of one response and layer follow one another in
    ascending order. The mean of the raw scores of each round is taken in float64; `layer` and `head` are no columns of
    the result. Raises DataError, naming the pair, where a response lacks one of the ascending ``heads`` or its heads
    cover different numbers of tokens.
    """
    rows = _rows_by_response(table, layer, heads)
    kept = table.drop_columns(["layer", "head", *SCORES]).take(rows[:, 0])
    for name in SCORES:
        kept = kept.append_column(name, _mean(table, name, rows))
    return kept


def _rows_by_response(table: pa.Table, layer: int, heads: Sequence[int]) -> NDArray[np.int64]:
    """Row numbers [responses, K]."""
    head = table["head"].to_numpy()
    rows = np.flatnonzero((table["layer"].to_numpy() == layer) & np.isin(head, heads))
    whole = len(rows) // len(heads) * len(heads)
    by_response = rows[:whole].reshape(-1, len(heads))
    wrong = (head[by_response] != np.array(heads)).any(axis=1)
    for name in ("pair_id", "response"):
        first = table[name].take(by_response[:, 0])
        for column in by_response[:, 1:].T:
            wrong |= pc.not_equal(first, table[name].take(column)).to_numpy()
    if wrong.any() or whole < len(rows):
        row = by_response[wrong.argmax(), 0] if wrong.any() else rows[-1]
        raise DataError(
            f"{_where(table, row)}: its rows of layer {layer} are not those of heads {list(heads)}, {_REMEDY}"
        )
    return by_response


def _mean(table: pa.Table, name: str, rows: NDArray[np.int64]) -> pa.ListArray:
    """The lists [n] of float64 means over the K rows of each response."""
    # Head by head over all responses at once: no Python object per response, one head's copy of the scores at a time.
    lengths = _lengths(table[name].take(rows[:, 0]))
    total = np.zeros(lengths.sum(), dtype=np.float64)
    for column in rows.T:
        scores = table[name].take(column)
        other = np.flatnonzero(_lengths(scores) != lengths)
        if len(other):
            raise DataError(
                f"{_where(table, column[other[0]])}: its heads cover different numbers of tokens, {_REMEDY}"
            )
        total += pc.list_flatten(scores).to_numpy()
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(total / rows.shape[1]))


def _lengths(lists: pa.ChunkedArray) -> NDArray[np.int64]:
    return pc.list_value_length(lists).to_numpy().astype(np.int64)


def _where(table: pa.Table, row: int) -> str:
    return f"pair {table['pair_id'][int(row)].as_py()}, {table['response'][int(row)].as_py()} response"

"""The weights of a split as tables, one row per pair and response, wherever they come from."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.io.artifact import Artifact
from pipeline.io.lists import arrays_of, list_array
from pipeline.schemas.aligned import ALIGNED
from pipeline.schemas.base import FLOATS, RESPONSES
from pipeline.schemas.tokens import TOKENS
from pipeline.schemas.weights import WEIGHTS

COLUMNS = ["pair_id", "response", "offsets", "weights"]


def weight_tables(root: Path, split: str) -> Iterator[pa.Table]:
    """Tables with COLUMNS, one per shard: weights of sum 1 over the tokens of a response.

    The judge's, in its own context and before realignment. Where no judge was asked, those of the trained tokens
    without the end of turn, divided by the sum of their sizes.
    """
    judged = Artifact(root / "data" / "weights", WEIGHTS)
    if not judged.skipped:
        for shard in judged.shards(split):
            yield shard.table(COLUMNS)
        return
    tokens, aligned = Artifact(root / "data" / "tokens", TOKENS), Artifact(root / "data" / "aligned", ALIGNED)
    for of_tokens, of_weights in zip(tokens.shards(split), aligned.shards(split), strict=True):
        yield _joined(of_tokens.table(), of_weights.table())


def _joined(tokens: pa.Table, aligned: pa.Table) -> pa.Table:
    """Offsets of `tokens` with weights of `aligned`; chosen and rejected of a pair one after the other."""
    rows = {pair_id: row for row, pair_id in enumerate(tokens["pair_id"].to_pylist())}
    kept = aligned["pair_id"].to_pylist()
    lists = {name: arrays_of(aligned[f"{name}_weights"]) for name in RESPONSES}
    spans = {name: tokens[f"{name}_offsets"] for name in RESPONSES}
    eos = {name: tokens[f"{name}_eos"].to_pylist() for name in RESPONSES}
    weights, offsets = [], []
    for place, pair_id in enumerate(kept):
        for name in RESPONSES:
            row = rows[pair_id]
            end = len(lists[name][place]) - eos[name][row]
            found = lists[name][place][:end].astype(np.float64)
            total = np.abs(found).sum()
            weights.append(found / total if total else np.full(end, 1 / max(end, 1)))
            offsets.append(spans[name][row].as_py()[:end])
    return pa.table(
        {
            "pair_id": pa.array([pair_id for pair_id in kept for _ in RESPONSES], pa.string()),
            "response": pa.array(list(RESPONSES) * len(kept), pa.string()),
            "offsets": pa.array(offsets, WEIGHTS.field("offsets").type),
            "weights": list_array(weights, FLOATS),
        }
    )

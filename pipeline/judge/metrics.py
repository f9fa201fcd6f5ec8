"""What rendering did to a split, for `reports/metrics/render.json`."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.schemas.base import RESPONSES

CUTS = ("prompt_cut", "chosen_cut", "rejected_cut")
COLUMNS = ["round", "input_ids", *(f"{name}_{edge}" for name in RESPONSES for edge in ("start", "end")), *CUTS]


def render_metrics(tables: Iterable[pa.Table]) -> dict[str, float]:
    """Metrics of the shards of one split, given their columns `COLUMNS`.

    `judge_tokens` counts both rounds; means and shares are over pairs, cuts in tokens (those of METHODS 2.2, point 2).
    """
    shards = [_numbers(table) for table in tables]
    rows = {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}
    first = rows["round"] == 1
    pairs = int(first.sum())
    metrics: dict[str, float] = {"pairs": pairs, "judge_tokens": int(rows["judge_tokens"].sum())}
    if not pairs:
        return metrics
    metrics |= {
        "judge_tokens_mean": float(rows["judge_tokens"].mean()),
        "judge_tokens_max": int(rows["judge_tokens"].max()),
    }
    for name in RESPONSES:
        lengths = rows[f"{name}_tokens"][first]
        metrics |= {f"{name}_tokens_mean": float(lengths.mean()), f"{name}_tokens_max": int(lengths.max())}
    cuts = np.stack([rows[name][first] for name in CUTS])
    metrics["cut_share"] = float((cuts > 0).any(axis=0).mean())
    for name, of in zip(CUTS, cuts, strict=True):
        metrics |= {f"{name}_share": float((of > 0).mean()), f"{name}_tokens": int(of.sum())}
    return metrics


def _numbers(table: pa.Table) -> dict[str, NDArray[np.int64]]:
    columns = {"round": table["round"], "judge_tokens": pc.list_value_length(table["input_ids"])}
    columns |= {f"{name}_tokens": pc.subtract(table[f"{name}_end"], table[f"{name}_start"]) for name in RESPONSES}
    columns |= {name: table[name] for name in CUTS}
    return {name: column.to_numpy().astype(np.int64) for name, column in columns.items()}

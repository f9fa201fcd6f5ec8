"""The section on weights: the numbers of the paper's Tables 1 and 2, and how weight is spread over tokens."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.report.markdown import code, image, table
from pipeline.report.numbers import decimal, percent
from pipeline.report.style import COLORS, DOTTED, drawing, legend_above
from pipeline.report.weight_shape import EDGES, POSITIONS, WeightShape
from pipeline.schemas.base import RESPONSES

TOP = 0.1
"""Share of the tokens whose weight the text names."""


def gather_shapes(tables: Iterable[pa.Table]) -> dict[str, WeightShape]:
    """Of chosen and rejected responses, over tables with the columns `response` and `weights`, of sum 1 each."""
    shapes = {name: WeightShape() for name in RESPONSES}
    for rows in tables:
        for name, shape in shapes.items():
            shape.add(rows.filter(pc.equal(rows["response"], name))["weights"])
    return shapes


def weights_section(
    metrics: Mapping[str, Any], shapes: Mapping[str, WeightShape], figures: Path, show_tokens: bool
) -> str:
    """Tables and figure; writes `weights.svg` into `figures`. Without `show_tokens`, tokens are named by id alone."""
    parts = [
        f"Weights of the train split, from {_rows(metrics)}, in judge-context tokens."
        " Std (of the population) and max are taken within a response, then averaged over responses, as in the paper's"
        " Table 1; the shares of the first tokens show the attention sink and its repair (Eq. 14).",
        _spread_table(metrics),
    ]
    parts += _drawn(shapes, figures)
    parts += [
        "Most weighted tokens (the paper's Table 2): mean weight over all occurrences, of tokens that occur at least"
        " `postprocess.top_tokens_min_count` times."
        + ("" if show_tokens else " Vocabulary ids alone, because `report.include_text` is off."),
        _token_table(metrics, show_tokens),
    ]
    return "\n\n".join(parts)


def scored_section(source: str, scores: Mapping[str, Any], shapes: Mapping[str, WeightShape], figures: Path) -> str:
    """Weights that no judge gives; writes `weights.svg` into `figures`. `scores`: metrics of the stage `score`."""
    parts = [
        f"Weights of the train split, from source `{source}`, of the trained tokens; here divided by the sum of their"
        " sizes, so that all sources look alike.",
    ]
    if found := scores.get("train"):
        rows = [
            [name, decimal(found[f"{name}_score_mean"], 4), decimal(found[f"{name}_score_std"], 4)]
            for name in RESPONSES
            if f"{name}_score_mean" in found
        ]
        parts.append(table(["response", "raw score, mean", "Std"], rows))
    return "\n\n".join(parts + _drawn(shapes, figures))


def _drawn(shapes: Mapping[str, WeightShape], figures: Path) -> list[str]:
    """The figure with its text; nothing without tokens."""
    if not all(shape.tokens.sum() for shape in shapes.values()):
        return []
    draw_shapes(shapes, figures / "weights.svg")
    carried = ", ".join(f"{percent(shapes[name].share_of_top(TOP))} in {name} responses" for name in RESPONSES)
    return [
        image("figures/weights.svg", "Distribution of weights, share of weight by share of tokens, weight by position"),
        f"The {percent(TOP, 0)} most weighted tokens carry {carried}.",
    ]


def draw_shapes(shapes: Mapping[str, WeightShape], path: Path) -> None:
    """Three panels: how large weights are, how few tokens carry them, where in a response they lie."""
    middles = np.sqrt(EDGES[:-1] * EDGES[1:]).reshape(-1, _MERGED)[:, _MERGED // 2]
    with drawing(path, 1, 3, width=11, height=3.4) as (sizes, carried, positions):
        for name, shape in shapes.items():
            if not shape.tokens.sum():
                continue
            color = COLORS[name]
            share = shape.tokens.reshape(-1, _MERGED).sum(axis=1) / shape.tokens.sum()
            sizes.step(middles, 100 * share, where="mid", color=color, label=name)
            tokens, mass = shape.concentration()
            carried.plot(100 * tokens, 100 * mass, color=color, label=name)
            parts = (np.arange(POSITIONS) + 0.5) / POSITIONS
            positions.plot(100 * parts, shape.by_position(), color=color, marker="o", markersize=3, label=name)
        sizes.set(title="Size", xlabel="weight × tokens (uniform = 1)", ylabel="% of tokens")
        sizes.set(xscale="log", xlim=(1e-2, 1e2))
        sizes.axvline(1, **DOTTED)
        carried.plot([0, 100], [0, 100], **DOTTED)
        carried.set(title="Concentration", xlabel="% of tokens, most weighted first", ylabel="% of the weight")
        positions.axhline(1, **DOTTED)
        positions.set(title="Position", xlabel="% of the response", ylabel="mean weight × tokens")
        for panel in (sizes, positions):
            panel.set_ylim(bottom=0)
            legend_above(panel)


_MERGED = 5
"""Bins of WeightShape in one step of the histogram: 8 steps to a power of ten."""


def _rows(metrics: Mapping[str, Any]) -> str:
    """Which of the judge's rows the weights were made of."""
    if metrics["source"] == "rollout":
        return "attention rollout through all layers"
    heads = metrics["heads"]
    if heads == "mean":
        which = "all heads"
    elif len(heads) > 2 and heads == list(range(heads[0], heads[-1] + 1)):
        which = f"heads {heads[0]} to {heads[-1]}"
    else:
        which = "heads " + ", ".join(map(str, heads))
    return f"layer {metrics['layer']}, mean over {which} (counted from 0)"


def _spread_table(metrics: Mapping[str, Any]) -> str:
    rows = []
    for name in RESPONSES:
        for stage, label in (("before_sink_fix", "before"), ("after_sink_fix", "after")):
            means = metrics[name][stage]
            shares = [percent(means[f"share_{position}"], 2) for position in (1, 2, 3)]
            rows.append([name, label, decimal(means["std"], 4), decimal(means["max"], 4)])
            rows[-1] += [decimal(means["length"], 1), *shares]
    header = ["response", "sink fix", "Std", "Max", "Len", "1st token", "2nd", "3rd"]
    return table(header, rows, left=2)


def _token_table(metrics: Mapping[str, Any], show_tokens: bool) -> str:
    columns = [[_token_cells(row, show_tokens) for row in metrics[name]["top_tokens"]] for name in RESPONSES]
    longest = max(len(column) for column in columns)
    if not longest:
        return "No token occurs that often; lower `postprocess.top_tokens_min_count` to see some."
    empty = ["", "", ""]
    rows = [
        [*(chosen[row] if row < len(chosen) else empty), *(rejected[row] if row < len(rejected) else empty)]
        for chosen, rejected in [columns]
        for row in range(longest)
    ]
    return table([cell for name in RESPONSES for cell in (f"{name}: token", "weight", "times")], rows)


def _token_cells(row: Mapping[str, Any], show_tokens: bool) -> Sequence[str]:
    token = code(row["token"]) if show_tokens else f"id {row['token_id']}"
    return [token, decimal(row["mean_weight"], 4), f"{row['occurrences']:,}"]

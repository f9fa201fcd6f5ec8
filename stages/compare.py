"""The table of the comparison, from its rows: `reports/compare/`."""

import csv
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config.compare import read_comparison
from pipeline.config.weights import WeightsParams
from pipeline.errors import DataError, PipelineError
from pipeline.evaluate.table import EVALUATED
from pipeline.io.atomic import write_text
from pipeline.io.digest import value_digest
from pipeline.io.parquet import read_table
from pipeline.report.compare import (
    Row,
    comparison_table,
    difference_table,
    draw_comparison,
    fewer_trained,
    left_out,
    on_common_pairs,
    seed_table,
)
from pipeline.report.provenance import params_text

SEED = 42


def compare(root: Path) -> None:
    """Read the rows, write the page. Raises DataError where a row is missing, or no test pair is common to all rows."""
    comparison = read_comparison(root)
    folders = [root / "compare" / "rows" / name for name in comparison.rows]
    if missing := [folder.name for folder in folders if not (folder / "row.json").is_file()]:
        raise DataError(f"compare/rows: nothing of {', '.join(missing)}; make it with `make compare`")
    found = [json.loads((folder / "row.json").read_text(encoding="utf-8")) for folder in folders]
    if older := [folder.name for folder, of in zip(folders, found, strict=True) if "train_pairs" not in of]:
        raise DataError(f"compare/rows: {', '.join(older)} are of an earlier version; `make compare` makes them again")
    params = [of["params"] for of in found]
    every = [_read(folder, of) for folder, of in zip(folders, found, strict=True)]
    rows = on_common_pairs(every)
    pairs = len(rows[0].pair_ids)
    if not pairs:
        raise DataError("compare/rows: no test pair went through all rows; look into the rows' data/refused")
    drawn = comparison.bootstrap_samples, comparison.confidence, SEED
    out = root / "reports" / "compare"
    out.mkdir(parents=True, exist_ok=True)
    draw_comparison(rows, *drawn, out / "accuracy.svg")
    changes = {name: comparison.all[name] or {} for name in comparison.rows}
    seeds = by_seeds(rows, params)
    page = [
        "# Comparison",
        f"{pairs:,} test pairs; intervals of {comparison.confidence:.0%} by bootstrap over pairs (of answers: over"
        " answers). Plain: every token counts alike; weighted: by the row's own weights, |y| Σ aₜ rₜ where these sum to"
        " 1, Σ aₜ rₜ where they do not or the objective leaves |y| out. Minutes and memory are those of training.",
        *made_with_labels(every, params),
        *fewer_trained(every),
        *left_out(every, rows),
        comparison_table(rows, *drawn),
        "![Accuracies with their intervals](accuracy.svg)",
        "## Differences, pair by pair",
        "An interval of differences is narrower than those of the rows themselves: both saw the same pairs. It knows"
        " nothing of other seeds.",
        difference_table(rows, *drawn),
        *(
            [
                "## Seeds",
                "Rows that differ by their seeds alone: the mean, and the lowest and highest of them. A difference"
                " between two rows that is no larger than this is none.",
                seed_table(seeds),
            ]
            if seeds
            else []
        ),
        "## Params",
        f"Of `{rows[0].name}`, whole:",
        f"```yaml\n{params_text(_shown(params[0]))}```",
        "What each row changes of `base`, which is what the first row holds without its own changes:",
        f"```yaml\n{params_text(changes)}```",
    ]
    write_text(out / "index.md", "\n\n".join(page) + "\n")


def by_seeds(rows: Sequence[Row], params: Sequence[dict[str, Any]]) -> list[list[Row]]:
    """The rows whose params are equal but for seeds, where there are several; of rows of equal seeds too, the first."""
    groups: dict[str, dict[str, Row]] = {}
    for row, of in zip(rows, params, strict=True):
        shown = _shown(of)
        groups.setdefault(value_digest(_without_seeds(shown)), {}).setdefault(value_digest(shown), row)
    return [list(group.values()) for group in groups.values() if len(group) > 1]


def made_with_labels(rows: Sequence[Row], params: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence where weights know which response is preferred; nothing otherwise."""
    named = [f"`{row.name}`" for row, of in zip(rows, params, strict=True) if _holds_label(of["weights"])]
    if not named:
        return []
    return [
        f"Weights of {', '.join(named)} are made otherwise for a chosen response than for a rejected one, on test pairs"
        " too: weighted figures hold the label, and are no generalization."
    ]


def _holds_label(given: dict[str, Any]) -> bool:
    """Whether a source treats chosen and rejected responses apart: by an exponent's sign, or the best and worst."""
    weights = WeightsParams.model_validate(given)
    if weights.source == "contrast":
        of = weights.contrast
        return not (of.transform == "random" or (of.transform == "binary" and of.top_percent == 100.0))
    return weights.source == "critical"


def _without_seeds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_seeds(item) for key, item in value.items() if key not in ("seed", "flip_seed")}
    return value


def _shown(params: dict[str, Any]) -> dict[str, Any]:
    """Without what changes no row, and without the prompts, which are those of the test pairs."""
    kept = {name: section for name, section in params.items() if name not in ("runtime", "report")}
    asked = {name: value for name, value in kept.get("evaluate", {}).items() if name != "prompts"}
    return {**kept, **({"evaluate": asked} if asked else {})}


def _read(folder: Path, found: dict[str, Any]) -> Row:
    return Row.read(
        folder.name,
        read_table(folder / "pairs.parquet", EVALUATED),
        beta=found["params"]["train"]["beta"],
        answer_tokens=found["answer_tokens"],
        train_pairs=found["train_pairs"],
        minutes=sum(_column(folder / "seconds.tsv", "seconds")) / 60,
        memory_mib=max(_column(folder / "memory_mib.tsv", "memory_mib")),
    )


def _column(path: Path, name: str) -> list[float]:
    with path.open(encoding="utf-8", newline="") as stream:
        return [float(line[name]) for line in csv.DictReader(stream, delimiter="\t")]


if __name__ == "__main__":
    try:
        compare(Path(os.environ.get("DVC_ROOT", ".")).resolve())
    except PipelineError as error:
        sys.exit(f"compare: {error}")

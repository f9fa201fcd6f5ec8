"""The table of the comparison, from its rows: `reports/compare/`."""

import csv
import json
import os
import sys
from pathlib import Path
from typing import Any

from pipeline.config.load import read_params
from pipeline.errors import DataError, PipelineError
from pipeline.evaluate.table import EVALUATED
from pipeline.io.atomic import write_text
from pipeline.io.parquet import read_table
from pipeline.report.compare import (
    Row,
    comparison_table,
    difference_table,
    draw_comparison,
    left_out,
    on_common_pairs,
)
from pipeline.report.provenance import params_text

SEED = 42


def compare(root: Path) -> None:
    """Read the rows, write the page. Raises DataError where no test pair is common to all rows."""
    comparison = read_params(root / "compare" / "params.yaml")
    folders = [root / "compare" / "rows" / name for name in comparison["rows"]]
    params = [json.loads((folder / "row.json").read_text(encoding="utf-8"))["params"] for folder in folders]
    every = [_read(folder) for folder in folders]
    rows = on_common_pairs(every)
    pairs = len(rows[0].pair_ids)
    if not pairs:
        raise DataError("compare/rows: no test pair went through all rows; look into the rows' data/refused")
    drawn = comparison["bootstrap_samples"], comparison["confidence"], SEED
    out = root / "reports" / "compare"
    out.mkdir(parents=True, exist_ok=True)
    draw_comparison(rows, *drawn, out / "accuracy.svg")
    changes = {name: comparison["all"][name] or {} for name in comparison["rows"]}
    page = [
        "# Comparison",
        f"{pairs:,} test pairs; intervals of {comparison['confidence']:.0%} by bootstrap over pairs (of answers: over"
        " answers). Rows whose intervals overlap are not ranked. Plain: every token counts alike; weighted: by the"
        " row's own weights, |y| Σ aₜ rₜ, without |y| where the objective has none.",
        *left_out(every, rows),
        comparison_table(rows, *drawn),
        "![Accuracies with their intervals](accuracy.svg)",
        "## Differences, pair by pair",
        difference_table(rows, *drawn),
        "## Params",
        f"Of `{rows[0].name}`, whole:",
        f"```yaml\n{params_text(_shown(params[0]))}```",
        "What each row changes of `base`, which is what the first row holds without its own changes:",
        f"```yaml\n{params_text(changes)}```",
    ]
    write_text(out / "index.md", "\n\n".join(page) + "\n")


def _shown(params: dict[str, Any]) -> dict[str, Any]:
    return {name: section for name, section in params.items() if name not in ("runtime", "report")}


def _read(folder: Path) -> Row:
    found = json.loads((folder / "row.json").read_text(encoding="utf-8"))
    return Row.read(
        folder.name,
        read_table(folder / "pairs.parquet", EVALUATED),
        beta=found["params"]["train"]["beta"],
        answer_tokens=found["answer_tokens"],
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

"""What earlier stages left for the report: metrics, curves, refused pairs."""

import csv
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ShardError
from pipeline.io.parquet import read_table
from pipeline.schemas.refused import REFUSED


@dataclass(frozen=True)
class Curve:
    """One figure of training by optimizer step."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Refused:
    """Pairs that one stage refused for one reason."""

    stage: str
    split: str
    reason: str
    pairs: int


def read_metrics(root: Path, stage: str) -> dict[str, Any]:
    """`reports/metrics/<stage>.json`. Raises ShardError when it is missing or torn."""
    metrics: dict[str, Any] = read_json(root / "reports" / "metrics" / f"{stage}.json")
    return metrics


def read_json(path: Path) -> Any:
    """A JSON file of an earlier stage. Raises ShardError when it is missing or torn."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ShardError(f"{path}: no such file; run `dvc repro` to make it") from None
    except ValueError as error:
        raise ShardError(f"{path}: torn or not JSON ({error}); remove it and run `dvc repro`") from None


def read_curves(folder: Path) -> dict[str, Curve]:
    """Every curve below `reports/train`, by its name, such as `train/loss`.

    Raises ShardError where a file is not a table of steps and numbers.
    """
    base = folder / "plots" / "metrics"
    curves = {}
    for path in sorted(base.rglob("*.tsv")):
        name = path.relative_to(base).with_suffix("").as_posix()
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        try:
            steps, values = [int(row["step"]) for row in rows], [float(row[path.stem]) for row in rows]
        except (KeyError, ValueError, TypeError) as error:
            raise ShardError(f"{path}: not a curve ({error}); remove it and run `dvc repro train`") from None
        curves[name] = Curve(np.array(steps, np.int64), np.array(values, np.float64))
    return curves


def read_refused(folder: Path) -> list[Refused]:
    """Counts of `data/refused/*.parquet` by stage, split and reason; stages in alphabetical order."""
    found = []
    for path in sorted(folder.glob("*.parquet")):
        table = read_table(path, REFUSED, ["split", "reason"])
        counts = Counter(zip(table["split"].to_pylist(), table["reason"].to_pylist(), strict=True))
        found += [Refused(path.stem, split, reason, pairs) for (split, reason), pairs in sorted(counts.items())]
    return found

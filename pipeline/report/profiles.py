"""The line on the profiles whose values a run's params hold."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config.matching import matching_profiles
from pipeline.io.parquet import read_facts
from pipeline.report.markdown import code


def profiles_line(root: Path, params: Mapping[str, Any]) -> str:
    """Which method and choices these params are, by the names in `profiles/`.

    Raises ConfigError for a profile that cannot be read.
    """
    found = matching_profiles(params, root / "profiles", _depth(root))
    if not found:
        return "They hold all values of no profile:"
    names = ", ".join(map(code, found))
    return f"They hold all values of the profiles {names} (models that one leaves to be named may differ):"


def _depth(root: Path) -> int | None:
    """Layers of the judge; None where no judge was asked."""
    shards = sorted((root / "data" / "attention").rglob("*.parquet"))
    return read_facts(shards[0]).get("num_layers") if shards else None

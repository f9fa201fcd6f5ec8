"""The section on what the run was made of: models, versions, sizes, params. Nothing of the machine it ran on."""

import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ruamel.yaml import YAML

from pipeline.io.parquet import read_facts
from pipeline.report.markdown import code, table
from pipeline.report.numbers import size

ARTIFACTS = (
    "data/pairs", "data/judge", "data/attention", "data/verdicts", "data/weights", "data/tokens", "data/aligned",
    "data/scores", "data/reference", "data/third", "models/policy",
)  # fmt: skip
_LEFT_OUT = ("runtime",)
"""Sections that cannot change a result and describe a machine."""


def provenance_section(root: Path, params: Mapping[str, Any], profiles: str) -> str:
    """Models, library versions, sizes of the artifacts that are here, and params after the line on their `profiles`."""
    sizes = [(name, *_size(root / name)) for name in ARTIFACTS if (root / name).is_dir()]
    return "\n\n".join(
        [
            table(["", ""], _models_and_versions(root), left=2),
            table(["artifact", "files", "size"], [[f"`{name}`", f"{files:,}", size(b)] for name, files, b in sizes]),
            f"Params, without `runtime`. {profiles}",
            _fenced(params_text(params)),
        ]
    )


def params_text(params: Mapping[str, Any]) -> str:
    """params.yaml without comments and `runtime`; of an absolute path only its last part."""
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 100
    yaml.dump({name: shown_path(section) for name, section in params.items() if name not in _LEFT_OUT}, stream)
    return stream.getvalue()


def shown_path(value: Any) -> Any:
    """The value with absolute paths in it shortened to `…/<last part>`: they name a machine, not the run."""
    if isinstance(value, Mapping):
        return {key: shown_path(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shown_path(item) for item in value]
    if isinstance(value, str) and "\n" not in value:
        if value.startswith(("/", "~/")) and len(PurePosixPath(value).parts) > 1:
            return f"…/{PurePosixPath(value).name}"
        if PureWindowsPath(value).is_absolute():
            return f"…/{PureWindowsPath(value).name}"
    return value


def _models_and_versions(root: Path) -> list[list[str]]:
    judged = _facts(root / "data" / "weights")
    trained = read_facts(root / "reports" / "evaluate" / "pairs.parquet")
    rows = [["judge", _model(judged)], ["policy starts from", _model(trained)]]
    versions = {**judged.get("versions", {}), **trained.get("versions", {})}
    return [*rows, *([name, code(str(of))] for name, of in versions.items())]


def _model(facts: Mapping[str, Any]) -> str:
    parts = [code(str(facts.get("model", "not recorded")))]
    if facts.get("revision"):
        parts.append(f"revision {code(str(facts['revision']))}")
    if facts.get("dtype"):
        parts.append(f"in {facts['dtype']}")
    return ", ".join(parts)


def _facts(folder: Path) -> dict[str, Any]:
    """The footer of the folder's first shard."""
    return next((read_facts(path) for path in _files(folder)), {})


def _size(folder: Path) -> tuple[int, int]:
    """Files below a folder, and their bytes."""
    sizes = [path.stat().st_size for path in _files(folder)]
    return len(sizes), sum(sizes)


def _files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _fenced(text: str) -> str:
    ticks = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, ticks + 1)
    return f"{fence}yaml\n{text}{fence}"

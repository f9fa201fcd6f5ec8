"""All that can be said against the rows of a comparison before hours of the first one: `.work/compare-check/`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config.compare import CompareParams
from pipeline.errors import ConfigError
from pipeline.io.atomic import write_text
from pipeline.io.closure import code_digest
from pipeline.io.digest import value_digest
from stages.common import CODE
from stages.compare_folder import FIRST, begin, check_row, row_params, run_here


def check_rows(root: Path, comparison: CompareParams, names: list[str]) -> None:
    """Params, pairs and models of all rows, in folders of their own; once for the same params and files of pairs.

    Raises ConfigError where params don't fit or are not of the same pairs and start, PipelineError where pairs or
    models lack what a row needs; each names the row.
    """
    params = {name: row_params(root, comparison, name) for name in names}
    check_same_pairs_and_start({name: check_row(of, name) for name, of in params.items()})
    files = _files(params[names[0]]["prepare"])
    code = {stage: code_digest(CODE / "stages" / f"{stage}.py", CODE) for stage in FIRST}
    what = value_digest({"rows": params, "files": files, "code": code})
    checked = root / ".work" / "compare-check" / "checked"
    if checked.is_file() and checked.read_text(encoding="utf-8") == what:
        return
    for name in names:
        # Not the row's own folder: it may be in the making.
        folder = checked.parent / "rows" / name
        begin(root, folder, name, params[name])
        run_here(name, folder, FIRST)
    write_text(checked, what)


def _files(prepare: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """What tells whether local pairs have changed. Raises ConfigError where their folder is not there."""
    if prepare.get("hub"):
        return []
    folder = Path(prepare["folder"])
    if not folder.is_dir():
        raise ConfigError(
            f"compare/params.yaml: base.prepare.folder: {folder} is no folder; put pairs there, or name a folder that"
            " has some, such as data/sample, and its files under `train` and `test`"
        )
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(folder.iterdir())]


def check_same_pairs_and_start(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Sections by row. Raises ConfigError for a row whose start, pairs or tokens are not those of the first one."""
    first, of_first = next(iter(rows.items()))
    for name, sections in rows.items():
        same = {
            "model.start": (sections["model"].start_ref, of_first["model"].start_ref),
            **{part: (sections[part], of_first[part]) for part in ("prepare", "tokenize")},
        }
        for path, (one, other) in same.items():
            if one != other:
                raise ConfigError(
                    f"row {name} of compare/params.yaml: {path} is not that of row {first}; rows are compared on the"
                    " same pairs from the same start: set it under `base`"
                )

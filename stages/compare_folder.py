"""The folder of a row, in which the pipeline's stages run: `.work/compare/<row>/`, or where rows are checked.

Rows share one store of results (`.work/compare/store`): a stage that finds there what it would make takes it.
"""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.config.check import check_params
from pipeline.config.compare import CompareParams
from pipeline.config.load import read_params
from pipeline.config.merge import merged
from pipeline.errors import ConfigError, PipelineError
from pipeline.io.atomic import atomic_path
from pipeline.io.work import KEEP
from stages.common import main

FIRST = ("model", "prepare", "needs")
"""Stages of seconds, which say what a row lacks."""
HERE = ("needs", "render", "extract", "postprocess", "tokenize", "score", "realign", "reference", "third")
"""Stages that run in this process: starting one for each would take longer than most of them."""


def row_params(root: Path, comparison: CompareParams, name: str) -> dict[str, Any]:
    """The params of a row, with paths that hold wherever its stages run. Raises ConfigError for an unknown row."""
    if name not in comparison.all:
        raise ConfigError(f"compare/params.yaml: no row {name!r} under `all`; there are {', '.join(comparison.all)}")
    params = merged(read_params(root / "params.yaml"), comparison.base, comparison.all[name] or {})
    named = [(params["prepare"], "folder")]
    for ref in params["model"].values():
        if isinstance(ref, dict):
            named += [(ref, "chat_template")] + ([(ref, "name")] if ref["source"] == "folder" else [])
    for place, key in named:
        if place.get(key):
            place[key] = str((root / place[key]).resolve())
    return params


def begin(root: Path, folder: Path, name: str, params: dict[str, Any]) -> None:
    """Make a row's folder: its work folders are the store, its packaged model is the repository's.

    Raises ConfigError where the params do not fit.
    """
    store = root / ".work" / "compare" / "store"
    store.mkdir(parents=True, exist_ok=True)
    (store / KEEP).touch()
    (folder / "models").mkdir(parents=True, exist_ok=True)
    for link, target in ((folder / ".work", store), (folder / "models" / "packaged", root / "models" / "packaged")):
        if not link.is_symlink():
            target.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target, target_is_directory=True)
    write_params(folder, params, name)


def check_row(params: dict[str, Any], name: str) -> dict[str, Any]:
    """The sections of a row's params. Raises ConfigError, naming the row, where they do not fit."""
    return check_params(params, f"row {name} of compare/params.yaml")


def write_params(folder: Path, params: dict[str, Any], name: str) -> None:
    """The params.yaml of a row. Raises ConfigError, naming the row and not this file, where they do not fit."""
    check_row(params, name)
    with atomic_path(folder / "params.yaml") as temporary, temporary.open("w", encoding="utf-8") as stream:
        YAML().dump(params, stream)


def run_here(name: str, folder: Path, stages: tuple[str, ...]) -> None:
    """Stages one after the other in this process. Raises PipelineError, naming the row, with a stage's message."""
    os.environ["DVC_ROOT"] = str(folder)
    for stage in stages:
        try:
            main(stage, import_module(f"stages.{stage}").work)
        except SystemExit as error:
            if not isinstance(error.code, str):
                raise  # a signal's
            raise PipelineError(f"row {name}: {error}") from None

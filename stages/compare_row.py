"""One row of the comparison: the stages one after the other in a folder of its own, `.work/compare/<row>/`.

Rows share one store of results (`.work/compare/store`): a stage that finds there what it would make takes it. So a row
trains again only when something that its training depends on has changed.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ruamel.yaml import YAML

from pipeline.config.check import check_params
from pipeline.config.compare import CompareParams, read_comparison
from pipeline.config.load import read_params
from pipeline.config.merge import merged
from pipeline.data.pairs import open_pairs
from pipeline.errors import ConfigError, PipelineError
from pipeline.io.atomic import atomic_path, write_json
from pipeline.io.closure import code_digest
from pipeline.io.digest import tree_digest, value_digest
from pipeline.io.work import KEEP
from stages.common import CODE, main

FIRST = ("model", "prepare", "needs")
"""Stages of seconds, which say what a row lacks."""
HERE = ("needs", "render", "extract", "postprocess", "tokenize", "score", "realign", "reference", "third")
"""Stages that run in this process: starting one for each would take longer than most of them."""
ALONE = ("train", "evaluate")
"""Stages whose memory is measured."""
KEPT = {
    "pairs.parquet": "reports/evaluate/pairs.parquet",
    "seconds.tsv": "reports/train/plots/metrics/train/seconds.tsv",
    "memory_mib.tsv": "reports/train/plots/metrics/train/memory_mib.tsv",
}
"""What of a row's folder the table reads, beside params and lengths of answers. No text."""
LONGEST_PROMPT = 400
"""Characters of a prompt that is answered."""


def run_row(root: Path, name: str) -> None:
    """Make `compare/rows/<name>/`.

    Raises ConfigError where any listed row is unknown, has params that don't fit, or is not of the same pairs and start
    as the others; PipelineError where models or data of any row are not what it needs. Nothing has been computed then.
    """
    comparison = read_comparison(root)
    _check_rows(root, comparison, list(dict.fromkeys([name, *comparison.rows])))
    folder, params = _folder(root, name), row_params(root, comparison, name)
    _run_here(name, folder, FIRST[:-1])
    asked = merged(params, {"evaluate": {"prompts": _prompts(folder, comparison.answers)}})
    _write_params(folder, asked, name)
    _run_here(name, folder, HERE)
    _run_alone(name, folder, "train")
    _evaluate(name, folder, asked)
    _publish(folder, root / "compare" / "rows" / name, params)


def _check_rows(root: Path, comparison: CompareParams, names: list[str]) -> None:
    """All that can be said against any of the rows, before hours of one; once for the same params and pairs."""
    params = {name: row_params(root, comparison, name) for name in names}
    sections = {}
    for name, of in params.items():
        with TemporaryDirectory() as nowhere:
            sections[name] = _write_params(Path(nowhere), of, name)
    check_same_pairs_and_start(sections)
    checked = root / ".work" / "compare" / "checked"
    files, code = _files(params[names[0]]["prepare"]), code_digest(CODE / "stages" / "needs.py", CODE)
    what = value_digest({"rows": params, "files": files, "code": code})
    if checked.is_file() and checked.read_text(encoding="utf-8") == what:
        _begin(root, names[0], params[names[0]])
        return
    for name in names:
        _begin(root, name, params[name])
        _run_here(name, _folder(root, name), FIRST)
    checked.write_text(what, encoding="utf-8")


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


def _folder(root: Path, name: str) -> Path:
    return root / ".work" / "compare" / name


def _begin(root: Path, name: str, params: dict[str, Any]) -> None:
    """The row's folder: its work folders are the store, its packaged model is the repository's."""
    folder = _folder(root, name)
    store = root / ".work" / "compare" / "store"
    store.mkdir(parents=True, exist_ok=True)
    (store / KEEP).touch()
    (folder / "models").mkdir(parents=True, exist_ok=True)
    for link, target in ((folder / ".work", store), (folder / "models" / "packaged", root / "models" / "packaged")):
        if not link.is_symlink():
            target.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target, target_is_directory=True)
    _write_params(folder, params, name)


def _write_params(folder: Path, params: dict[str, Any], name: str) -> dict[str, Any]:
    """The params.yaml of a row; its sections. Raises ConfigError, naming the row and not this file, where they do not
    fit."""
    with atomic_path(folder / "params.yaml") as temporary:
        with temporary.open("w", encoding="utf-8") as stream:
            YAML().dump(params, stream)
        return check_params(read_params(temporary), f"row {name} of compare/params.yaml")


def _run_here(name: str, folder: Path, stages: tuple[str, ...]) -> None:
    os.environ["DVC_ROOT"] = str(folder)
    for stage in stages:
        try:
            main(stage, import_module(f"stages.{stage}").work)
        except SystemExit as error:
            raise PipelineError(f"row {name}: {error}") from None


def _run_alone(name: str, folder: Path, stage: str) -> None:
    environment = {**os.environ, "DVC_ROOT": str(folder), "PYTHONPATH": str(CODE)}
    done = subprocess.run([sys.executable, "-m", f"stages.{stage}"], cwd=folder, env=environment, check=False)
    if done.returncode:
        raise PipelineError(f"row {name}: stage {stage} failed; its message is above")


def _evaluate(name: str, folder: Path, params: dict[str, Any]) -> None:
    """Unless the same was evaluated before: `evaluate` has no work folder that would tell."""
    read = [folder / part for part in ("models/policy", "models/start.json", "data/tokens/test", "data/aligned/test")]
    made_from = {
        "inputs": tree_digest(read),
        "params": {part: params[part] for part in ("evaluate", "train")},
        "code": code_digest(CODE / "stages" / "evaluate.py", CODE),
    }
    marker = folder / "reports" / "evaluate" / "made-from"
    if marker.is_file() and marker.read_text(encoding="utf-8") == value_digest(made_from):
        return
    # Killed from here on, its figures are of no params that the marker would name.
    marker.unlink(missing_ok=True)
    _run_alone(name, folder, "evaluate")
    marker.write_text(value_digest(made_from), encoding="utf-8")


def _prompts(folder: Path, number: int) -> list[str]:
    """The first short test prompts of a single turn."""
    pairs = open_pairs(folder / "data" / "pairs" / "test.parquet")
    turns = (pair["prompt"] for pair in pairs.records(0, pairs.table.num_rows))
    alone = [turn[0]["content"] for turn in turns if len(turn) == 1 and len(turn[0]["content"]) <= LONGEST_PROMPT]
    return alone[:number]


def _publish(folder: Path, out: Path, params: dict[str, Any]) -> None:
    """Figures, params and lengths; the answered prompts and the answers stay in the row's folder."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name, source in KEPT.items():
        shutil.copyfile(folder / source, out / name)
    trained = json.loads((folder / "reports" / "metrics" / "train.json").read_text(encoding="utf-8"))
    answers = YAML(typ="safe").load((folder / "reports" / "evaluate" / "answers.json").read_text(encoding="utf-8"))
    tokens = [answer["tokens"] for answer in answers]
    write_json(out / "row.json", {"params": params, "answer_tokens": tokens, "train_pairs": trained["pairs"]})


if __name__ == "__main__":
    # Ended by a signal, it ends the stage that it runs: else that one goes on alone, and the next start is refused.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        run_row(Path(os.environ.get("DVC_ROOT", ".")).resolve(), sys.argv[1])
    except IndexError:
        sys.exit("usage: python -m stages.compare_row ROW")
    except PipelineError as error:
        sys.exit(f"compare: {error}")

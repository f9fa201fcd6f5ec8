"""One row of the comparison: the stages one after the other in a folder of its own, `.work/compare/<row>/`.

A row trains again only when something that its training depends on has changed: see `stages.compare_folder`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.config.compare import read_comparison
from pipeline.config.merge import merged
from pipeline.data.pairs import open_pairs
from pipeline.errors import PipelineError
from pipeline.io.atomic import write_json
from pipeline.io.closure import code_digest
from pipeline.io.digest import tree_digest, value_digest
from stages.common import CODE
from stages.compare_check import check_rows
from stages.compare_folder import FIRST, HERE, begin, row_params, run_here, write_params

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
    check_rows(root, comparison, list(dict.fromkeys([name, *comparison.rows])))
    folder, params = root / ".work" / "compare" / name, row_params(root, comparison, name)
    begin(root, folder, name, params)
    run_here(name, folder, FIRST[:-1])
    asked = merged(params, {"evaluate": {"prompts": _prompts(folder, comparison.answers)}})
    write_params(folder, asked, name)
    run_here(name, folder, HERE)
    _run_alone(name, folder, "train")
    _evaluate(name, folder, asked)
    _publish(folder, root / "compare" / "rows" / name, params)


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

"""Every method's profile on the sample with the packaged model: from pairs to two optimizer steps, in one process.

    python -m benchmarks.profiles [--pairs 24] [--save] [NAME ...]

The models that a profile leaves to be named are the packaged model itself, and copies whose weights were moved. What
profiles have in common is made once. A profile fails alone: what it says is in the result.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML

from pipeline.config.load import read_params
from pipeline.config.merge import merged
from pipeline.config.profile import profile_names, read_profile
from pipeline.io.work import KEEP
from pipeline.models.load import load_model, load_tokenizer
from pipeline.models.named import named_model
from stages.common import library_versions, main

ROOT = Path(__file__).resolve().parents[1]
SAVED = ROOT / "benchmarks" / "results" / "profiles-cpu.json"
CHOICES = ("clean", "official_code", "paper")
STAGES = (
    "needs", "render", "extract", "postprocess", "tokenize", "score", "realign", "reference", "third", "train",
)  # fmt: skip
SHORT: dict[str, Any] = {
    "prepare": {"folder": "data", "pairs_per_shard": 8},
    "tokenize": {"max_tokens": 256, "max_prompt_tokens": 128},
    "score": {"verbalized": {"max_new_tokens": 384}},
    "third": {"max_new_tokens": 16},
    "train": {
        "max_steps": 2,
        "warmup_ratio": 0.0,
        "warmup_steps": None,
        "global_batch_pairs": 4,
        "eval_every_steps": 9,
        "checkpoint_every_steps": 9,
    },
}
"""Over the profile's values: lengths and steps, which no profile is about."""
MOVED = 0.02
"""Of each matrix's own standard deviation, added to the weights of a copy: models with something to contrast."""


def run(names: Sequence[str], pairs: int) -> Iterator[dict[str, Any]]:
    """One entry for each profile, in the order of `names`, as soon as it is there."""
    with tempfile.TemporaryDirectory(prefix="profiles-") as temporary:
        root = Path(temporary)
        _prepare(root, pairs)
        base = merged(read_params(ROOT / "params.yaml"), SHORT)
        _write(root, base)
        _stages(root, ("model", "prepare"))
        for role, seed in (("positive", 1), ("negative", 2), ("other-judge", 3)):
            _moved_copy(root, role, seed)
        for name in names:
            yield _profile(root, base, name)


def _prepare(root: Path, pairs: int) -> None:
    (root / ".work").mkdir()
    (root / ".work" / KEEP).touch()
    (root / "data").mkdir()
    (root / "models").mkdir()
    (root / "models" / "packaged").symlink_to(ROOT / "models" / "packaged")
    for name, rows_of in (("train", pairs), ("test", pairs // 4)):
        # A third, best response: the chosen one, as the sample has none.
        source = ROOT / "data" / "sample" / f"{name}.jsonl"
        rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()[:rows_of]]
        text = "".join(json.dumps({**row, "gold": _text(row["chosen"])}) + "\n" for row in rows)
        (root / "data" / f"{name}.jsonl").write_text(text, encoding="utf-8")


def _text(response: Any) -> str:
    return str(response if isinstance(response, str) else response[-1]["content"])


def _moved_copy(root: Path, name: str, seed: int) -> None:
    manifest = named_model(root, "start")
    model = load_model(manifest, "float32", torch.device("cpu"))
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim >= 2:
                weight += MOVED * weight.std() * torch.randn(weight.shape, generator=random)
    model.save_pretrained(root / "models" / name)
    load_tokenizer(manifest).save_pretrained(root / "models" / name)


def _profile(root: Path, base: Mapping[str, Any], name: str) -> dict[str, Any]:
    params = merged(base, read_profile(ROOT / "profiles", name), SHORT)
    for role, ref in params["model"].items():
        if isinstance(ref, dict) and ref["source"] == "folder":
            ref["name"] = "models/other-judge" if role == "judge" else f"models/{role}"
    _write(root, params)
    # What a stage that does not come to run would leave is of the profile before.
    shutil.rmtree(root / "reports", ignore_errors=True)
    began = time.perf_counter()
    found: dict[str, Any] = {
        "profile": name, "source": params["weights"]["source"], "objective": params["train"]["objective"],
    }  # fmt: skip
    try:
        _stages(root, ("model", *STAGES))
    except SystemExit as error:
        return {**found, "seconds": round(time.perf_counter() - began, 1), "failed": str(error), **_refused(root)}
    train, aligned = _metrics(root, "train"), _metrics(root, "realign")
    return {
        **found,
        "seconds": round(time.perf_counter() - began, 1),
        "pairs": aligned["train"]["pairs"],
        "steps": train["steps"],
        "loss": train["last_tenth"]["loss"],
        **_refused(root),
    }


def _refused(root: Path) -> dict[str, Any]:
    """Pairs by stage and reason; nothing where none was refused."""
    found = {stage: _metrics(root, stage).get("refused") for stage in ("tokenize", "score", "realign", "third")}
    return {"refused": kept} if (kept := {stage: of for stage, of in found.items() if of}) else {}


def _metrics(root: Path, stage: str) -> dict[str, Any]:
    path = root / "reports" / "metrics" / f"{stage}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _stages(root: Path, stages: Sequence[str]) -> None:
    os.environ["DVC_ROOT"] = str(root)
    for stage in stages:
        main(stage, import_module(f"stages.{stage}").work)


def _write(root: Path, params: Mapping[str, Any]) -> None:
    with (root / "params.yaml").open("w", encoding="utf-8") as stream:
        YAML().dump(dict(params), stream)


def _main() -> None:
    names = profile_names(ROOT / "profiles")
    every = [name for name in names if name not in CHOICES and not name.startswith("paper-llama3")]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", metavar="NAME", help="profiles; all methods' unless given")
    parser.add_argument("--pairs", type=int, default=24, help="of the sample")
    parser.add_argument("--save", action="store_true", help=f"into {SAVED.relative_to(ROOT)}, beside what is there")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(every)):
        parser.error(f"no such method: {', '.join(unknown)}; there are {', '.join(every)}")
    facts = {
        "command": f"python -m benchmarks.profiles --pairs {given.pairs} --save",
        "versions": library_versions(),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "pairs": given.pairs,
    }
    found, failed = _saved(facts) if given.save else {}, False
    for of in run(given.names or every, given.pairs):
        print(json.dumps(of), flush=True)
        failed |= "failed" in of
        found[of["profile"]] = {**of, "commit": _commit(), "date": date.today().isoformat()}
        if given.save:
            # After each one: an hour's run that is cut off has not been for nothing.
            kept = [found[name] for name in sorted(found) if name in every]
            SAVED.write_text(json.dumps({**facts, "profiles": kept}, indent=1) + "\n", encoding="utf-8")
    sys.exit(failed)


def _saved(facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By name what was saved of other profiles, where it was made in the same way."""
    saved = json.loads(SAVED.read_text(encoding="utf-8")) if SAVED.is_file() else {}
    alike = {**saved, "profiles": None} == {**facts, "profiles": None}
    return {of["profile"]: of for of in saved["profiles"]} if alike else {}


def _commit() -> str:
    told = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return told.stdout.strip()


if __name__ == "__main__":
    _main()

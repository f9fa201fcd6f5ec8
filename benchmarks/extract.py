"""`make bench-extract`: the attention rows of real judge prompts in four ways, each in its own process, alternating.

official      the released code's way: eager attention, all layers' matrices, one prompt at a time
two_forwards  the paper's "two extra forward passes": SDPA, padded, best batch size, no head, no rows
two_forwards_tuned  the same with this project's malloc settings (on the CPU)
engine        this project's transformers backend, the prompts' header computed anew in every round (an upper bound: a
              run of `extract` computes it once)
vllm          this project's vLLM backend, where it is installed; only with the packaged judge, as it reads weights from
              files, and only on all cores, as torch's number of threads does not bind it

Before anything is timed, rows and verdict probabilities of all sides that have them are compared, by the tolerances
that vLLM's rows are held to in every run. Prints a table, and as the last line JSON; `--save NAME` keeps it under
benchmarks/results/.
"""

import argparse
import datetime
import json
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.extract_sides import SIDES, arguments, parsed
from benchmarks.process import Process, machine
from benchmarks.workload import ROOT, SHAPES, open_workload, total_tokens
from pipeline.attention.flops import peak_flops
from pipeline.attention.vllm.check import PROBABILITY_TOLERANCE, ROW_TOLERANCE, row_difference

WORKLOAD = ("judge", "dtype", "device", "threads", "pairs", "tuning_prompts")
RATIOS = {
    "vs_official": "official",
    "vs_two_forwards": "two_forwards",
    "vs_two_forwards_same_malloc": "two_forwards_tuned",
}
MEANING = {
    "peak_mib": "peak of the whole run above the loaded model; so are official_peak_mib and peaks_mib",
    "longest_prompt": "peak above the loaded model for the longest prompt alone",
    "differences": "largest |difference| of a prompt's row from the first side's, as a share of the row",
    "largest_absolute_differences": "of a single score or probability",
}
ULTRAFEEDBACK_PAIRS = 61_135


def start(python: str, side: str, given: argparse.Namespace) -> Process:
    """One side at work."""
    shared = [word for name in WORKLOAD for word in (f"--{name.replace('_', '-')}", str(getattr(given, name)))]
    return Process(side, [python, "-m", "benchmarks.extract_sides", side, *shared], given.threads)


@dataclass(frozen=True)
class Difference:
    """Of a side from the first one."""

    share: float = 0.0
    """Largest `row_difference` of a prompt."""
    absolute: float = 0.0
    """Largest |difference| of a score or probability."""


def differences(folder: Path, sides: list[str], dtype: str) -> dict[str, Difference]:
    """Of every side that has rows, prompt by prompt. Exits where one differs by more than the dtype's tolerances."""
    found = {side: np.load(folder / f"{side}.npz") for side in sides if (folder / f"{side}.npz").is_file()}
    return {side: _difference(side, arrays, *next(iter(found.items())), dtype) for side, arrays in found.items()}


def _difference(side: str, found: Any, first: str, expected: Any, dtype: str) -> Difference:
    rows, others = (np.split(each["rows"], np.cumsum(each["lengths"])[:-1]) for each in (found, expected))
    shares = [row_difference([other], [row]) for row, other in zip(rows, others, strict=True)]
    probs = np.abs(found["probs"] - expected["probs"]).max(axis=1)
    for what, values, tolerance in (
        ("row", shares, ROW_TOLERANCE[dtype]),
        ("probability of a verdict", probs, PROBABILITY_TOLERANCE[dtype]),
    ):
        for index, value in enumerate(values):
            if not value <= tolerance:
                raise SystemExit(
                    f"judge prompt {index}: the {what} of {side} differs from {first}'s by {value:.2g}, more than "
                    f"{tolerance:g}: nothing is timed"
                )
    return Difference(max(shares), max(float(np.abs(found["rows"] - expected["rows"]).max()), float(probs.max())))


def left_out(given: argparse.Namespace) -> dict[str, str]:
    """The sides that this run cannot time, and why."""
    reasons = {}
    if given.device == "cuda":
        reasons["two_forwards_tuned"] = "malloc's settings matter on the CPU only"
    if given.judge in SHAPES:
        reasons["vllm"] = "it reads weights from files, so only --judge packaged is measured"
    elif not Path(given.vllm_python).is_file():
        reasons["vllm"] = f"{given.vllm_python} is not there; `make test-vllm` installs it for the CPU"
    elif given.threads != os.cpu_count():
        reasons["vllm"] = f"it uses all {os.cpu_count()} cores, whatever --threads {given.threads} says"
    return reasons


def figures(seconds: dict[str, list[float]], peaks: dict[str, float], pairs: int) -> dict[str, float]:
    """The result's speeds, ratios and peaks; those of a side that did not run are left out."""
    median = {side: statistics.median(times) for side, times in seconds.items()}
    found = {}
    if "engine" in median:
        found["pairs_per_s"] = pairs / median["engine"]
        found |= {name: median[side] / median["engine"] for name, side in RATIOS.items() if side in median}
        found["peak_mib"] = peaks["engine"]
    if "official" in median:
        found["official_peak_mib"] = peaks["official"]
    if "vllm" in median:
        found["vllm_pairs_per_s"] = pairs / median["vllm"]
    return found


def main() -> None:
    """Check, time, print."""
    parser = arguments()
    parser.description = __doc__
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vllm-python", default=str(ROOT / ".venv-vllm" / "bin" / "python"))
    parser.add_argument("--sides", default=",".join(SIDES), help="names with commas between; the first to have rows is "
                        "what the others are compared with")  # fmt: skip
    parser.add_argument("--save", help="name of a file below benchmarks/results/")
    given = parsed(parser)
    wanted = list(dict.fromkeys(given.sides.split(",")))
    if unknown := [side for side in wanted if side not in SIDES]:
        parser.error(f"--sides: unknown {', '.join(map(repr, unknown))}; choose from {', '.join(SIDES)}")
    for side, reason in left_out(given).items():
        if side in wanted:
            wanted.remove(side)
            print(f"{side}: left out: {reason}", flush=True)
    if not wanted:
        parser.error("--sides: none of them can be timed here")
    with tempfile.TemporaryDirectory() as folder:
        sides = {}
        for side in wanted:
            sides[side] = start(given.vllm_python if side == "vllm" else sys.executable, side, given)
            print(f"{side}: ready {sides[side].ready['chosen']}", flush=True)
        facts = {side: process.ask("check", f"{folder}/{side}.npz") for side, process in sides.items()}
        apart = differences(Path(folder), wanted, given.dtype)
    seconds: dict[str, list[float]] = {side: [] for side in wanted}
    for number in range(1, given.rounds + 1):
        for side, process in sides.items():
            seconds[side].append(process.ask("run")["seconds"])
        print(f"round {number}:", *(f"{side} {times[-1]:.2f} s" for side, times in seconds.items()), flush=True)
    peaks = {side: process.ask("peak")["mib"] for side, process in sides.items()}
    alone = {side: process.ask("longest") for side, process in sides.items()}
    for process in sides.values():
        process.close()
    tokens = total_tokens(open_workload(given.judge, given.pairs).prompts)
    print(f"\n{given.pairs} pairs, {tokens:,} tokens, {given.dtype}, {given.device}, {given.threads} threads, "
          f"{given.rounds} rounds")  # fmt: skip
    print(f"{'':20}{'pairs/s':>9}{'median s':>10}{'peak MiB':>10}{'longest prompt':>16}{'differs by':>12}")
    for side, times in seconds.items():
        median = statistics.median(times)
        differs = f"{apart[side].share:.1e}" if side in apart else "-"
        print(f"{side:20}{given.pairs / median:>9.3f}{median:>10.3f}{peaks[side]:>10.0f}"
              f"{alone[side]['mib']:>12.0f} MiB{differs:>12}")  # fmt: skip
    print("peak MiB: of the whole run above the loaded model; longest prompt: the peak for it alone\n"
          "differs by: the largest share of a prompt's row")  # fmt: skip
    result: dict[str, Any] = {
        **figures(seconds, peaks, given.pairs),
        "dtype": given.dtype,
        "longest_prompt": alone,
        "seconds": seconds,
        "peaks_mib": peaks,
        "chosen": {side: process.ready["chosen"] for side, process in sides.items()},
        "differences": {side: each.share for side, each in apart.items()},
        "largest_absolute_differences": {side: each.absolute for side, each in apart.items()},
        "meaning": MEANING,
        "tokens": tokens,
        "workload": {name: getattr(given, name) for name in WORKLOAD},
        "machine": machine(given.device),
        "date": datetime.date.today().isoformat(),
    }
    if "engine" in wanted:
        result["engine"] = facts["engine"]
        if peak := peak_flops(torch.device(given.device), given.dtype):
            result["model_flop_utilization"] = facts["engine"]["flops"] / statistics.median(seconds["engine"]) / peak
            result["hours_for_ultrafeedback"] = ULTRAFEEDBACK_PAIRS / result["pairs_per_s"] / 3600
    if given.save:
        path = ROOT / "benchmarks" / "results" / given.save
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

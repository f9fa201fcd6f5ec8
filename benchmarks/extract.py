"""`make bench-extract`: the attention rows of real judge prompts in four ways, each in its own process, alternating.

official      the released code's way: eager attention, all layers' matrices, one prompt at a time
two_forwards  the paper's "two extra forward passes": SDPA, padded, best batch size, no head, no rows
two_forwards_tuned  the same with this project's malloc settings (on the CPU)
engine        this project's transformers backend
vllm          this project's vLLM backend, where it is installed

Rows and verdict probabilities of all sides that have them are compared before anything is timed. Prints a table, and as
the last line JSON; `--save NAME` keeps it under benchmarks/results/.
"""

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.extract_sides import SIDES, arguments
from benchmarks.workload import ROOT, SHAPES, open_workload, total_tokens
from pipeline.attention.flops import peak_flops

TOLERANCE = {"float32": 1e-5, "bfloat16": 5e-2}
"""Largest difference of a row's entries, and of a probability, between two sides. bfloat16 rows differ from float32 by
up to 3e-2 where the largest entries are of order 0.3."""
ULTRAFEEDBACK_PAIRS = 61_135


class Process:
    """One side at work."""

    def __init__(self, python: str, side: str, shared: list[str]) -> None:
        self.side = side
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.extract_sides", side, *shared],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("BENCH_VERBOSE") else subprocess.DEVNULL,
            text=True,
        )
        self.chosen = self._answer()["chosen"]

    def ask(self, *command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.side} ended with status {self._process.wait()}; BENCH_VERBOSE=1 shows why")
        answer: dict[str, Any] = json.loads(line)
        return answer


def differences(folder: Path, sides: list[str], tolerance: float) -> dict[str, float]:
    """Largest difference of every side's rows and probabilities from those of the first. Exits above the tolerance."""
    found = {side: np.load(folder / f"{side}.npz") for side in sides if (folder / f"{side}.npz").is_file()}
    first = next(iter(found))
    worst = {}
    for side, arrays in found.items():
        worst[side] = max(float(np.abs(arrays[name] - found[first][name]).max()) for name in ("rows", "probs"))
        if worst[side] > tolerance:
            raise SystemExit(
                f"{side} differs from {first} by {worst[side]:.1e}, more than {tolerance}: nothing is timed"
            )
    return worst


def main() -> None:
    """Check, time, print."""
    parser = arguments()
    parser.description = __doc__
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vllm-python", default=str(ROOT / ".venv-vllm" / "bin" / "python"))
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--save", help="name of a file below benchmarks/results/")
    given = parser.parse_args()
    names = ("judge", "dtype", "device", "threads", "pairs", "tuning_prompts")
    shared = [word for name in names for word in (f"--{name.replace('_', '-')}", str(getattr(given, name)))]
    pythons = dict.fromkeys(SIDES, sys.executable) | {"vllm": given.vllm_python}
    if not Path(given.vllm_python).is_file() or given.judge in SHAPES:
        del pythons["vllm"]
    if given.device == "cuda":
        del pythons["two_forwards_tuned"]
    wanted = [side for side in given.sides.split(",") if side in pythons]
    with tempfile.TemporaryDirectory() as folder:
        sides = {}
        for side in wanted:
            sides[side] = Process(pythons[side], side, shared)
            print(f"{side}: ready {sides[side].chosen}", flush=True)
        facts = {side: process.ask("check", f"{folder}/{side}.npz") for side, process in sides.items()}
        worst = differences(Path(folder), wanted, TOLERANCE[given.dtype])
    seconds: dict[str, list[float]] = {side: [] for side in wanted}
    for number in range(1, given.rounds + 1):
        for side, process in sides.items():
            seconds[side].append(process.ask("run")["seconds"])
        print(f"round {number}:", *(f"{side} {times[-1]:.2f} s" for side, times in seconds.items()), flush=True)
    peaks = {side: process.ask("peak")["mib"] for side, process in sides.items()}
    alone = {side: process.ask("longest") for side, process in sides.items()}
    for process in sides.values():
        process.close()
    median = {side: statistics.median(times) for side, times in seconds.items()}
    rate = {side: given.pairs / value for side, value in median.items()}
    workload = open_workload(given.judge, given.pairs)
    print(f"\n{given.pairs} pairs, {total_tokens(workload.prompts):,} tokens, {given.dtype}, {given.device}, "
          f"{given.threads} threads, {given.rounds} rounds")  # fmt: skip
    print(f"{'':20}{'pairs/s':>9}{'median s':>10}{'peak MiB':>10}{'longest prompt':>16}{'differs by':>12}")
    for side in wanted:
        differs = f"{worst[side]:.1e}" if side in worst else "-"
        print(f"{side:20}{rate[side]:>9.3f}{median[side]:>10.3f}{peaks[side]:>10.0f}"
              f"{alone[side]['mib']:>12.0f} MiB{differs:>12}")  # fmt: skip
    result = {
        "pairs_per_s": rate["engine"],
        "vs_official": median["official"] / median["engine"],
        "vs_two_forwards": median["two_forwards"] / median["engine"],
        "peak_mib": peaks["engine"],
        "official_peak_mib": peaks["official"],
        "dtype": given.dtype,
        "longest_prompt": {side: alone[side] for side in wanted},
        "seconds": seconds,
        "peaks_mib": peaks,
        "chosen": {side: process.chosen for side, process in sides.items()},
        "differences": worst,
        "engine": facts["engine"],
        "tokens": total_tokens(workload.prompts),
        "workload": {name: getattr(given, name) for name in names},
        "machine": machine(given.device),
        "date": datetime.date.today().isoformat(),
    }
    if "two_forwards_tuned" in rate:
        result["vs_two_forwards_same_malloc"] = median["two_forwards_tuned"] / median["engine"]
    if "vllm" in rate:
        result["vllm_pairs_per_s"] = rate["vllm"]
    if peak := peak_flops(torch.device(given.device), given.dtype):
        result["model_flop_utilization"] = facts["engine"]["flops"] / median["engine"] / peak
        result["hours_for_ultrafeedback"] = ULTRAFEEDBACK_PAIRS / rate["engine"] / 3600
    if given.save:
        path = ROOT / "benchmarks" / "results" / given.save
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def machine(device: str) -> dict[str, Any]:
    """What the figures belong to."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return {
        "cpu": model,
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "numpy")},
    }


if __name__ == "__main__":
    main()

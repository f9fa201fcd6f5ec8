"""One side of a benchmark in a process of its own, and the machine that the figures belong to."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.workload import ROOT


class Process:
    """One side at work: it writes a JSON line when it is ready, and one for every line that it is sent."""

    def __init__(self, name: str, command: Sequence[str], threads: int) -> None:
        self.name = name
        self._process = subprocess.Popen(
            list(command),
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("BENCH_VERBOSE") else subprocess.DEVNULL,
            text=True,
        )
        self.ready = self._answer()
        """What it said when it was ready."""

    def ask(self, *command: str) -> dict[str, Any]:
        """Send a line, and wait for its answer. Exits where the side ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with status {self._process.wait()}; BENCH_VERBOSE=1 shows why")
        answer: dict[str, Any] = json.loads(line)
        return answer


def machine(device: str, packages: Sequence[str] = ("torch", "transformers", "numpy")) -> dict[str, Any]:
    """Processor, device and versions."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return {
        "cpu": model,
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }

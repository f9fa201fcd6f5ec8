"""The sides of the extraction benchmark. `python -m benchmarks.extract_sides NAME ...` serves one in its own process.

It answers commands on standard input, one JSON line each: `check FILE` writes rows and verdicts, `run` times one round,
`peak` says the most memory above the loaded model since the start, `longest` the same for the longest prompt alone.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch

from benchmarks.memory import Memory, wait
from benchmarks.workload import ROOT, Workload, open_judge, open_workload
from pipeline.attention.backend import JudgePrompt, Usage
from pipeline.attention.transformers_backend import TransformersBackend
from pipeline.models.batching import token_batches
from pipeline.models.device import choose_device

TUNING_PROMPTS = {"cpu": 12, "cuda": 128}
TUNING_ROUNDS = 2
VLLM_BUDGET = 8192
BUDGETS = {"cpu": (1024, 2048, 4096, 8192), "cuda": (8192, 16_384, 32_768, 65_536)}

Found = dict[str, Any]
"""`rows`: per prompt the scores of both responses one after the other; `probs`: per prompt P(A), P(B)."""


class Side:
    """One way to get the rows of a workload's last layer."""

    def __init__(self, given: argparse.Namespace, workload: Workload) -> None:
        self.given, self.workload = given, workload

    def run(self, prompts: list[JudgePrompt]) -> Found | None:
        """One round over the prompts."""
        raise NotImplementedError

    def tune(self) -> dict[str, Any]:
        """Choose the best batch size, where there is one; returns what was chosen."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Of the last round, what else is worth a line in the result."""
        return {}

    def _best(self, sizes: tuple[int, ...], use: Callable[[int], None]) -> dict[str, Any]:
        timed = {}
        use(sizes[0])
        self.run(self.workload.prompts[:2])  # not counted: libraries set themselves up
        for size in sizes:
            use(size)
            try:
                timed[size] = min(self._seconds() for _ in range(TUNING_ROUNDS))
            except torch.OutOfMemoryError:
                break
        best = min(timed, key=lambda size: timed[size])
        use(best)
        return {"token_budget": best, "tried": {str(size): round(seconds, 3) for size, seconds in timed.items()}}

    def _seconds(self) -> float:
        began = time.perf_counter()
        self.run(self.workload.prompts[: self.given.tuning_prompts])
        wait(self.given.device)
        return time.perf_counter() - began


class Official(Side):
    """The released code's way: eager attention, `output_attentions=True`, one prompt at a time, the last row kept."""

    def __init__(self, given: argparse.Namespace, workload: Workload) -> None:
        super().__init__(given, workload)
        self.model = open_judge(given.judge, given.dtype, given.device, "eager")

    @torch.inference_mode()
    def run(self, prompts: list[JudgePrompt]) -> Found:
        rows, probs = [], []
        for prompt in prompts:
            ids = torch.tensor([prompt.input_ids], device=self.model.device)
            output = self.model(ids, output_attentions=True, use_cache=False)
            row = output.attentions[-1][0, :, -1].float().mean(0).cpu().numpy()
            rows.append(np.concatenate([row[start:end] for start, end in prompt.spans]))
            probs.append(output.logits[0, -1].float().softmax(-1)[list(self.workload.verdict_ids)].cpu().numpy())
        return {"rows": rows, "probs": probs}


class TwoForwards(Side):
    """The paper's "two extra forward passes": SDPA, padded batches, no head. Rows are not to be had this way."""

    def __init__(self, given: argparse.Namespace, workload: Workload) -> None:
        super().__init__(given, workload)
        self.model = open_judge(given.judge, given.dtype, given.device, "sdpa")
        self.budget = 1

    def tune(self) -> dict[str, Any]:
        return self._best((1, *BUDGETS[self.given.device]), lambda size: setattr(self, "budget", size))

    @torch.inference_mode()
    def run(self, prompts: list[JudgePrompt]) -> Found:
        probs: dict[int, Any] = {}
        for batch in token_batches([len(prompt.input_ids) for prompt in prompts], self.budget):
            last = [len(prompts[index].input_ids) - 1 for index in batch]
            ids = torch.zeros(len(batch), max(last) + 1, dtype=torch.long)
            for place, index in enumerate(batch):
                ids[place, : last[place] + 1] = torch.tensor(prompts[index].input_ids)
            hidden = self.model.base_model(ids.to(self.model.device), use_cache=False).last_hidden_state
            probs |= {index: hidden[place, last[place]] for place, index in enumerate(batch)}
        return {"hidden": [probs[index] for index in range(len(prompts))]}


class TwoForwardsTuned(TwoForwards):
    """The same with this project's malloc settings, to tell what they give from what sharing gives."""

    def __init__(self, given: argparse.Namespace, workload: Workload) -> None:
        choose_device(given.device)
        super().__init__(given, workload)


class Engine(Side):
    """This project's transformers backend, on a device chosen as its stages do.

    Every round opens a backend of its own, so that the header is computed in each. A run of `extract` computes it once:
    its share of a round is the most it can cost.
    """

    def __init__(self, given: argparse.Namespace, workload: Workload) -> None:
        super().__init__(given, workload)
        choose_device(given.device)
        self.model = open_judge(given.judge, given.dtype, given.device, "sdpa")
        self.header, self.verdict_ids = workload.header, workload.verdict_ids
        self.budget = BUDGETS[given.device][1]
        self.usage = Usage()

    def tune(self) -> dict[str, Any]:
        return self._best(BUDGETS[self.given.device], lambda size: setattr(self, "budget", size))

    def run(self, prompts: list[JudgePrompt]) -> Found:
        backend = TransformersBackend(
            self.model, layers=[-1], verdict_ids=self.verdict_ids, token_budget=self.budget, header=self.header
        )
        self.usage = backend.usage
        return judged(backend.run(prompts))

    def facts(self) -> dict[str, Any]:
        return dict(vars(self.usage))


class Vllm(Side):
    """This project's vLLM backend. Its own prefix cache is emptied before every round, as every pair comes once."""

    def __init__(self, given: argparse.Namespace, workload: Workload) -> None:
        super().__init__(given, workload)
        from pipeline.attention.backends import open_backend
        from pipeline.config.extract import ExtractParams
        from pipeline.config.model import ModelRef
        from pipeline.config.runtime import RuntimeParams
        from pipeline.models.resolve import resolve

        manifest = resolve(ModelRef(source="packaged"), "judge", ROOT)
        runtime = RuntimeParams(backend="vllm", token_budget=VLLM_BUDGET, vllm_kv_cache_gib=1.0)
        params = ExtractParams(layers=[-1], dtype=given.dtype)
        self.backend = open_backend(runtime, params, manifest, torch.device(given.device))
        self.backend.run(workload.prompts[:2])

    def tune(self) -> dict[str, Any]:
        return {"token_budget": VLLM_BUDGET, "not_tuned": "every other size would need a slow start of its own"}

    def run(self, prompts: list[JudgePrompt]) -> Found:
        self.backend.reset_prefix_cache()  # type: ignore[attr-defined]
        return judged(self.backend.run(prompts))


SIDES: dict[str, type[Side]] = {
    "official": Official,
    "two_forwards": TwoForwards,
    "two_forwards_tuned": TwoForwardsTuned,
    "engine": Engine,
    "vllm": Vllm,
}


def judged(judgements: list[Any]) -> Found:
    """Judgements as the rows and probabilities that sides are compared by."""
    rows = [np.concatenate([span[0] for span in next(iter(each.rows.values()))]) for each in judgements]
    return {"rows": rows, "probs": [np.array([each.verdict.prob_a, each.verdict.prob_b]) for each in judgements]}


def save(path: str | Path, found: Found) -> None:
    """Keep rows and probabilities for the comparison, and each prompt's `lengths` [prompts], to tell its row again."""
    lengths = [len(row) for row in found["rows"]]
    np.savez(path, rows=np.concatenate(found["rows"]), lengths=lengths, probs=np.stack(found["probs"]))


def arguments() -> argparse.ArgumentParser:
    """What the sides and their driver share."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--judge", default="packaged", help="packaged, or a shape of random weights: 8b, tiny")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--tuning-prompts", type=int, help=f"on which batch sizes are tried; default {TUNING_PROMPTS}")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What was given, with the defaults that depend on the device."""
    given = parser.parse_args()
    if given.tuning_prompts is None:
        given.tuning_prompts = TUNING_PROMPTS[given.device]
    return given


def serve() -> None:
    """Answer the driver's commands until it closes the pipe."""
    parser = arguments()
    parser.add_argument("side", choices=sorted(SIDES))
    given = parsed(parser)
    torch.set_num_threads(given.threads)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to standard error
    workload = open_workload(given.judge, given.pairs)
    side = SIDES[given.side](given, workload)
    memory = Memory(given.device)
    chosen = side.tune()
    longest = max(workload.prompts, key=lambda prompt: len(prompt.input_ids))
    memory.reset()
    answers.write(json.dumps({"chosen": chosen}) + "\n")
    for line in sys.stdin:
        command, *rest = line.split()
        answer: dict[str, Any] = {}
        if command == "check":
            found = side.run(workload.prompts)
            if found and "rows" in found:
                save(rest[0], found)
            answer = side.facts()
        elif command == "run":
            began = time.perf_counter()
            side.run(workload.prompts)
            wait(given.device)
            answer = {"seconds": time.perf_counter() - began}
        elif command == "peak":
            answer = {"mib": memory.above_base()}
        elif command == "longest":
            memory.reset()
            side.run([longest])
            answer = {"mib": memory.above_base(), "tokens": len(longest.input_ids)}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    serve()

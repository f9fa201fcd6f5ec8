"""The sides of the training benchmark. `python -m benchmarks.train_sides NAME ...` serves one in its own process.

It takes one optimizer step, so that the optimizer's state exists, and says so in a JSON line. Then it answers commands
on standard input, one JSON line each: `run search` and `run all` take a step on each global batch of those pairs, and
say the seconds and losses of the steps; `check all` the gradients' norms too; `peak` says the most memory held since.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from transformers import PreTrainedModel

from benchmarks.memory import MIB, Memory, wait
from benchmarks.train_trl import Trl
from benchmarks.train_workload import (
    BETA,
    LEARNING_RATE,
    MAX_GRAD_NORM,
    Steps,
    config,
    open_pairs,
    open_policy,
    save_reference,
    spread,
    with_reference,
)
from benchmarks.workload import SHAPES
from pipeline.config.runtime import RuntimeParams
from pipeline.config.train import TrainParams
from pipeline.models.budget import TokenBudget
from pipeline.models.device import choose_device
from pipeline.models.logps import LogProbModel
from pipeline.models.packed.layout import Prompted
from pipeline.models.response_logps import response_logps
from pipeline.schemas.base import RESPONSES
from pipeline.train.fsdp import process_group, shard_policy
from pipeline.train.learner import Learner
from pipeline.train.objective import open_objective
from pipeline.train.pairs import TrainedPair

STEPS = 10**6
REFERENCE_BUDGET = 4096


class Ours:
    """This project's Learner, alone in its process group."""

    def __init__(self, given: argparse.Namespace, setting: dict[str, Any]) -> None:
        self._given, self._steps = given, 0
        device = choose_device(given.device, given.threads)
        self._group = ExitStack()
        self._group.enter_context(process_group(device))
        policy = open_policy(given.model, given.layers, given.device, given.seed, moved=True).eval()
        self._learner = _learner(policy, given, setting, device)

    def run(self, batches: Sequence[Sequence[TrainedPair]], norms: bool) -> Steps:
        """An optimizer step on each of the global batches; norms are there anyway."""
        found: Steps = {"seconds": [], "losses": [], "grad_norms": []}
        for batch in batches:
            self._steps += 1  # from 1 on: the check before step 0 wants a policy that is the reference
            began = time.perf_counter()
            figures = self._learner.step(self._steps, batch)
            wait(self._given.device)
            found["seconds"].append(time.perf_counter() - began)
            found["losses"].append(figures["loss"])
            found["grad_norms"].append(figures["grad_norm"])
        return found


def _learner(
    policy: PreTrainedModel, given: argparse.Namespace, setting: dict[str, Any], device: torch.device
) -> Learner:
    """As `pipeline.train.run.Training` makes it."""
    params = TrainParams(
        objective="twdpo",
        beta=BETA,
        learning_rate=LEARNING_RATE,
        warmup_ratio=0.0,
        max_grad_norm=MAX_GRAD_NORM,
        global_batch_pairs=given.global_batch,
        dtype=given.dtype,
        seed=given.seed,
    )
    runtime = RuntimeParams(device=given.device, threads=given.threads, **setting)
    model = LogProbModel(policy, attention=runtime.attention)
    dtype = getattr(torch, given.dtype)
    shard_policy(model, dtype, device, runtime.activation_checkpointing, runtime.compile)
    return Learner(model, open_objective(params), params, STEPS, runtime, device)


def reference(given: argparse.Namespace, path: str) -> None:
    """Write the reference's log-probs: those of the policy's start, in the benchmark's dtype."""
    device = choose_device(given.device, given.threads)
    pairs = _pairs(given)
    model = open_policy(given.model, given.layers, given.device, given.seed, moved=False)
    model = model.to(getattr(torch, given.dtype)).to(device).eval()
    items = [Prompted(pair.prompt_ids, [getattr(pair, name).ids for name in RESPONSES]) for pair in pairs]
    found = response_logps(LogProbModel(model), items, TokenBudget(REFERENCE_BUDGET, device), share=False)
    save_reference(path, pairs, [logps for responses in found for logps in responses])


SIDES: dict[str, type[Trl] | type[Ours]] = {"trl": Trl, "ours": Ours, "ours_unshared": Ours}


def batches(pairs: Sequence[TrainedPair], size: int) -> Iterator[Sequence[TrainedPair]]:
    """Global batches, in the order of pairs."""
    return (pairs[first : first + size] for first in range(0, len(pairs), size))


def arguments() -> argparse.ArgumentParser:
    """What the sides and their driver share."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="packaged", choices=["packaged", *SHAPES], help="a shape has random weights")
    parser.add_argument("--layers", type=int, help="of a shape: so many blocks instead of its own number")
    parser.add_argument("--lengths", choices=["real", "ultrafeedback"], help="real pairs, or random ids in that "
                        "dataset's lengths; default: real with the packaged model")  # fmt: skip
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--global-batch", type=int, default=8, help="pairs in an optimizer step")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def parsed(parser: argparse.ArgumentParser, words: Sequence[str] | None = None) -> argparse.Namespace:
    """What was given, checked; the lengths' default follows from the model."""
    given = parser.parse_args(words)
    if given.lengths is None:
        given.lengths = "real" if given.model == "packaged" else "ultrafeedback"
    if given.lengths == "real" and given.model != "packaged":
        parser.error("--lengths real: only the packaged model has a tokenizer; take --lengths ultrafeedback")
    if given.layers is not None and (given.model == "packaged" or given.layers < 1):
        parser.error("--layers: a number of blocks from 1 on, and only of a shape with random weights")
    if given.global_batch < 1 or given.pairs < 1 or given.pairs % given.global_batch:
        parser.error(f"--pairs {given.pairs}: must be a multiple of --global-batch ({given.global_batch})")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this torch has no CUDA device")
    return given


def serve() -> None:
    """Answer the driver's commands until it closes the pipe."""
    parser = arguments()
    parser.add_argument("side", choices=[*SIDES, "reference"])
    parser.add_argument("--reference", required=True, help="file of the reference's log-probs")
    parser.add_argument("--setting", type=json.loads, help="JSON; see benchmarks.train_search")
    given = parsed(parser)
    torch.set_num_threads(given.threads)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to standard error

    def answer(**found: Any) -> None:
        answers.write(json.dumps(found) + "\n")

    if given.side == "reference":
        reference(given, given.reference)
        answer()
        return
    try:
        pairs = with_reference(_pairs(given), given.reference)
        passes = {"all": list(batches(pairs, given.global_batch)), "search": [spread(pairs, given.global_batch)]}
        side = SIDES[given.side](given, given.setting)
        side.run(passes["search"], norms=False)
        memory = Memory(given.device)
        memory.reset()
        answer(base_mib=memory.base / MIB)
        for line in sys.stdin:
            command, *rest = line.split()
            if command == "peak":
                answer(above_mib=memory.above_base(), total_mib=memory.peak())
            else:
                answer(**side.run(passes[rest[0]], norms=command == "check"))
                if command == "check":
                    memory.reset()  # what the check itself takes is not the trainer's
    except torch.OutOfMemoryError as error:
        answer(failed=f"out of memory: {str(error).splitlines()[0]}")


def _pairs(given: argparse.Namespace) -> list[TrainedPair]:
    return open_pairs(given.lengths, given.pairs, config(given.model, given.layers).vocab_size, given.seed)


if __name__ == "__main__":
    serve()

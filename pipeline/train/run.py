"""One training run in this process, alone or as one of torchrun's: from shards to a policy folder."""

import logging
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pipeline.config.runtime import RuntimeParams
from pipeline.config.train import TrainParams
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.io.progress import Progress
from pipeline.models.device import choose_device
from pipeline.models.load import load_model
from pipeline.models.logps import LogProbModel, Reference
from pipeline.models.manifest import Manifest
from pipeline.train.card import write_card
from pipeline.train.checkpoint import Best, Checkpoints, TrainState
from pipeline.train.curves import Curves
from pipeline.train.export import export_policy
from pipeline.train.finish import CHECKPOINTS, POLICY, Finished, write_finished
from pipeline.train.fsdp import process_group, shard_policy
from pipeline.train.learner import Learner
from pipeline.train.lora import AdapterOff, add_adapters
from pipeline.train.objective import open_objective
from pipeline.train.order import shuffled_order, stored_order
from pipeline.train.pairs import TrainedPair
from pipeline.train.precision import DTYPES
from pipeline.train.schedule import total_steps
from pipeline.train.stream import PairArtifacts, PairStream, check_fits, open_optional_split, open_split
from pipeline.train.trackers import Trackers, check_installed

_log = logging.getLogger(__name__)
_EVALUATION_BLOCK = 64
"""Pairs of one process that an evaluation reads together, to fill its micro-batches."""


@dataclass(frozen=True)
class Job:
    """A run: what it reads, how, and where it works."""

    params: TrainParams
    runtime: RuntimeParams
    artifacts: PairArtifacts
    start: Manifest
    work: Path
    """Holds `checkpoints/`; at the end `policy/` and the run in numbers (`pipeline.train.finish`)."""
    curves: Path
    depends: Mapping[str, Any]
    """Everything the result depends on; a checkpoint that names something else is refused."""


class Training:
    """The loop over optimizer steps, with its evaluations and checkpoints."""

    def __init__(self, job: Job) -> None:
        """Open data, newest checkpoint and policy. The process group must be there."""
        self.job = job
        params = job.params
        self._rank, self._world = dist.get_rank(), dist.get_world_size()
        if params.global_batch_pairs % self._world:
            raise ConfigError(
                f"train.global_batch_pairs: {params.global_batch_pairs} can't be divided among {self._world} processes;"
                " choose a multiple, or other runtime.processes"
            )
        objective = open_objective(params)
        check_installed(job.runtime.trackers)
        check_fits(job.artifacts, objective.needs)
        self._train = open_split(job.artifacts, "train")
        self._validation = open_optional_split(job.artifacts, "validation")
        self._steps_per_epoch = len(self._train) // params.global_batch_pairs
        self._steps = total_steps(len(self._train), params.global_batch_pairs, params.epochs, params.max_steps)
        if not self._steps_per_epoch:
            raise DataError(
                f"{job.artifacts.aligned.path / 'train'}: {len(self._train)} usable pairs, fewer than"
                f" train.global_batch_pairs ({params.global_batch_pairs}); lower it"
            )
        self._checkpoints = Checkpoints(job.work / CHECKPOINTS, job.depends, job.runtime.keep_checkpoints)
        whole = self._checkpoints.steps()
        self.state = self._checkpoints.read_state(whole[-1]) if whole else TrainState()

        device = _local_device(job.runtime)
        # Frozen weights are as the forward pass wants them; trained ones are float32 masters.
        model = load_model(job.start, params.dtype if params.lora else "float32", device)
        self.policy = LogProbModel(model, attention=job.runtime.attention)
        if params.lora:
            add_adapters(self.policy.model, params.lora, params.seed)
        self.dtype = DTYPES[params.dtype]
        runtime = job.runtime
        shard_policy(self.policy, self.dtype, device, runtime.activation_checkpointing, runtime.compile)
        if runtime.offload_activations and device.type == "cpu":
            _log.warning("runtime.offload_activations copies activations for nothing where the model is on the CPU")
        reference = self._open_reference(device) if "ref_model" in objective.needs else None
        self._learner = Learner(self.policy, objective, params, self._steps, runtime, device, reference)
        if whole:
            _log.info("resuming train: step %d of %d from %s", self.state.step, self._steps, job.work)
            self._checkpoints.load(self.state.step, self.policy, self._learner.optimizer)

    def run(self) -> None:
        """Train to the last step, then put the kept checkpoint's weights into the policy."""
        state = self.state
        leads = self._rank == 0
        curves = Curves(self.job.curves, state.history) if leads else None
        trackers = self._open_trackers() if leads else None
        progress = Progress("train", self._steps, unit="steps", done=state.step) if leads else None
        while state.step < self._steps:
            figures = self._learner.step(state.step, self._share(state.step))
            tokens = int(figures.pop("tokens"))
            state.step += 1
            state.epoch, state.pairs_consumed = self._position(state.step)
            line = {"step": float(state.step), **{f"train/{name}": value for name, value in figures.items()}}
            improved = self._evaluate(line) if self._is_due(self.job.params.eval_every_steps) else False
            state.history.append(line)
            if curves and trackers and progress:
                curves.add(line)
                trackers.add(line)
                progress.advance(1, tokens, _note(line), line)
            if improved or self._is_due(self.job.params.checkpoint_every_steps):
                self._checkpoints.save(self.policy, self._learner.optimizer, state)
        if trackers:
            trackers.close()
        self._take_best()

    def summary(self) -> dict[str, Any]:
        """The run in numbers: training figures of its first and last tenth, validation figures of the kept step."""
        history = self.state.history
        tenth = math.ceil(len(history) / 10)
        kept = self.state.best.step if self.state.best else self.state.step

        def mean(lines: list[dict[str, float]], name: str) -> float:
            return sum(line[name] for line in lines) / len(lines)

        names = ("loss", "rewards/margins", "rewards/accuracies", "plain/margins", "plain/accuracies")
        return {
            "pairs": len(self._train),
            "validation_pairs": len(self._validation) if self._validation else 0,
            "steps": self.state.step,
            "kept_step": kept,
            **{
                f"{part}_tenth": {name: mean(lines, f"train/{name}") for name in names}
                for part, lines in (("first", history[:tenth]), ("last", history[-tenth:]))
            },
            "validation": _with_prefix(history[kept - 1], "validation/"),
        }

    def _open_reference(self, device: torch.device) -> Reference:
        """The start, for its distributions over the vocabulary: the policy without its adapters, or a second model.

        The latter is whole in every process.
        """
        job = self.job
        if job.params.lora:
            return AdapterOff(self.policy)
        model = load_model(job.start, job.params.dtype, device)
        return LogProbModel(model.requires_grad_(False), attention=job.runtime.attention)

    def _open_trackers(self) -> Trackers:
        job = self.job
        return Trackers(
            job.runtime.trackers, job.curves.parent, job.work.name, job.params.model_dump(), self.state.history
        )

    def _share(self, step: int) -> list[TrainedPair]:
        """This process's pairs of the global batch of a step."""
        params = self.job.params
        epoch, index = divmod(step, self._steps_per_epoch)
        each = params.global_batch_pairs // self._world
        begin = index * params.global_batch_pairs + self._rank * each
        order = shuffled_order(params.seed, epoch, self._train.shard_rows)
        return self._train.block(order, begin, begin + each)

    def _position(self, steps: int) -> tuple[int, int]:
        """Epoch and pairs consumed in it after so many steps."""
        epoch, index = divmod(steps, self._steps_per_epoch)
        return epoch, index * self.job.params.global_batch_pairs

    def _is_due(self, every: int) -> bool:
        return self.state.step % every == 0 or self.state.step == self._steps

    def _evaluate(self, line: dict[str, float]) -> bool:
        """Add validation figures to a step's line; whether they are the best so far."""
        stream = self._validation
        if stream is None:
            return False
        figures = self._learner.evaluate(lambda: self._blocks(stream), self.state.step)
        line.update({f"validation/{name}": value for name, value in figures.items()})
        by_loss = self.job.params.best_metric == "loss"
        value = figures["loss" if by_loss else "rewards/accuracies"]
        best = self.state.best
        if best is None or (value < best.value if by_loss else value > best.value):
            self.state.best = Best(self.state.step, value)
            return True
        return False

    def _blocks(self, stream: PairStream) -> Iterator[list[TrainedPair]]:
        order = stored_order(stream.shard_rows)
        each = _EVALUATION_BLOCK
        for first in range(0, len(stream), each * self._world):
            begin = min(first + self._rank * each, len(stream))
            yield stream.block(order, begin, min(begin + each, len(stream)))

    def _take_best(self) -> None:
        best = self.state.best
        if best is None:
            _log.info("no validation pairs: the policy is that of the last step")
        elif best.step != self.state.step:
            if best.step not in self._checkpoints.steps():
                raise CheckpointError(
                    f"{self._checkpoints.folder}: the best checkpoint (step {best.step}) is gone; remove the folder to"
                    " train again"
                )
            self._checkpoints.load_model(best.step, self.policy)


def run_training(job: Job) -> Finished:
    """Train, or go on training, and leave the finished run in `job.work`. Returns its numbers, in every process."""
    with process_group(_local_device(job.runtime)):
        training = Training(job)
        training.run()
        export_policy(training.policy, training.dtype, job.start, job.work / POLICY, job.params.lora)
        finished = Finished(training.summary(), training.state.history)
        if dist.get_rank() == 0:
            write_card(job.work / POLICY, job.params, job.depends, job.start, finished.summary)
            write_finished(job.work, finished)
        return finished


def _local_device(runtime: RuntimeParams) -> torch.device:
    """This process's device; processes on one machine share its CPU threads, and have a GPU each."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    threads = runtime.threads if runtime.threads or processes == 1 else max(1, (os.cpu_count() or 1) // processes)
    device = choose_device(runtime.device, threads)
    if device.type == "cuda":
        if processes > (devices := torch.cuda.device_count()):
            raise ConfigError(f"runtime.processes: {processes} is more than the {devices} CUDA devices here; lower it")
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    return device


def _note(line: Mapping[str, float]) -> str:
    parts = {"loss": "train/loss", "margin": "train/rewards/margins", "accuracy": "train/rewards/accuracies"}
    figures = ", ".join(f"{name} {line[key]:.4f}" for name, key in parts.items())
    return f"{figures}, peak memory {line['train/memory_mib'] / 2**10:.2f} GiB"


def _with_prefix(line: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in line.items() if name.startswith(prefix)}

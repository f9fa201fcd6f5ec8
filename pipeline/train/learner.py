"""The policy with its optimizer and objective: what one optimizer step and one evaluation do."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from pipeline.config.runtime import RuntimeParams
from pipeline.config.train import TrainParams
from pipeline.io.processes import peak_resident
from pipeline.models.logps import Reference
from pipeline.objectives.response import PairLosses, Pairs, summed_log_ratios
from pipeline.train.batch import MicroBatch, collate, filler, split_pairs
from pipeline.train.check import TOLERANCES, check_figures, check_gradient, check_reference
from pipeline.train.figures import Figures
from pipeline.train.fsdp import all_sum, largest
from pipeline.train.objective import Objective
from pipeline.train.offload import offloaded
from pipeline.train.pairs import PromptedResponses, Trained, TrainedPair
from pipeline.train.precision import DTYPES, ComputeWeights
from pipeline.train.schedule import learning_rate


class Learner:
    """Every method is called by all processes together, each with its own share of the pairs."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        params: TrainParams,
        total_steps: int,
        runtime: RuntimeParams,
        device: torch.device,
        reference: Reference | None = None,
    ) -> None:
        """`reference`: for objectives that need `ref_model`."""
        self.model = model
        self.optimizer = _optimizer(model, params)
        self._weights = ComputeWeights(model, DTYPES[params.dtype])
        self._objective = objective
        self._params = params
        self._total_steps = total_steps
        self._runtime = runtime
        self._device = device
        self._reference = reference

    def step(self, step: int, pairs: Sequence[TrainedPair]) -> dict[str, float]:
        """Optimizer step number `step`, counted from 0, on this process's pairs of the global batch; its figures.

        Raises ModelError when the first step's log-probs are not the cached reference's, NonFiniteError before anything
        non-finite reaches the weights.
        """
        began = time.monotonic()
        torch.manual_seed((self._params.seed * 2**32 + step) % 2**63)
        figures = _Tally(self._device)
        batches = self._pair_batches(pairs)
        with self._weights.standing_in():
            baseline = self._kl_baseline([pairs])
            for batch in batches:
                with self._kept():
                    judged = self._forward(batch, baseline)
                outcome = figures.add(batch, self._objective(judged), judged)
                if step == 0:
                    check_reference(judged, batch, self._tolerance)
                (torch.dot(outcome.losses, batch.pair_weights) / self._params.global_batch_pairs).backward()
        means = figures.means(step)
        norm = self._clip([pair.pair_id for pair in pairs], step)
        rate = learning_rate(step, self._total_steps, self._params)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        tokens = int(all_sum(torch.tensor(sum(pair.tokens for pair in pairs), device=self._device)))
        return {
            **means,
            "grad_norm": norm,
            "learning_rate": rate,
            "tokens": tokens,
            "seconds": (seconds := time.monotonic() - began),
            "tokens_per_s": tokens / seconds,
            "memory_mib": _peak_memory(self._device) / 2**20,
        }

    @torch.no_grad()
    def evaluate(self, blocks: Callable[[], Iterable[Sequence[TrainedPair]]], step: int) -> dict[str, float]:
        """Figures over all pairs of all blocks; as many blocks in every process, some of them empty perhaps."""
        figures = _Tally(self._device)
        with self._weights.standing_in():
            baseline = self._kl_baseline(blocks())
            for pairs in blocks():
                for batch in self._pair_batches(pairs):
                    judged = self._forward(batch, baseline)
                    figures.add(batch, self._objective(judged), judged)
        return figures.means(step)

    def _forward(self, batch: MicroBatch, baseline: Tensor | None = None) -> Pairs:
        if self._reference is None:
            return batch.judged(self.model(batch.row), kl_baseline=baseline)
        logps, kls = self.model(batch.row, self._reference, self._objective.kl)
        return batch.judged(logps, kls, baseline)

    @torch.no_grad()
    def _kl_baseline(self, blocks: Iterable[Sequence[TrainedPair]]) -> Tensor | None:
        """KTO's z [] (METHODS 5): the mean log-ratio of responses after prompts that are not theirs, at least 0.

        Over all pairs of all processes, before any loss is computed: no split into micro-batches changes it.
        """
        if "kl_pairs" not in self._objective.needs:
            return None
        total = torch.zeros(2, dtype=torch.float64, device=self._device)
        for pairs in blocks:
            alone = [
                PromptedResponses(pair.pair_id, pair.prompt_ids, (pair.third,))
                for pair in pairs
                if pair.third is not None
            ]
            for batch in self._micro_batches(alone, sides=1):
                [mismatched] = batch.responses(self.model(batch.row))
                ratios = summed_log_ratios(mismatched)
                total += torch.stack([ratios.double() @ batch.pair_weights.double(), batch.pair_weights.double().sum()])
        ratio, number = all_sum(total)
        return (ratio / number).clamp_min(0).float()

    def _pair_batches(self, pairs: Sequence[TrainedPair]) -> list[MicroBatch]:
        sides = self._objective.sides
        seen = pairs if sides == 3 else [replace(pair, third=None) for pair in pairs]
        return self._micro_batches(seen, sides)

    def _micro_batches(self, pairs: Sequence[Trained], sides: int) -> list[MicroBatch]:
        share = self._runtime.share_prompts
        groups = split_pairs(pairs, self._runtime.micro_batch_tokens, share)
        batches = [collate(group, share, self._device) for group in groups]
        # A process with fewer micro-batches than others would leave them waiting in their collectives.
        missing = largest(len(batches), self._device) - len(batches)
        return batches + [filler(sides, "ref_logps" in self._objective.needs, self._device)] * missing

    def _kept(self) -> AbstractContextManager[None]:
        """Where the forward pass leaves what the backward pass needs."""
        return offloaded(self._device) if self._runtime.offload_activations else nullcontext()

    def _clip(self, pair_ids: Sequence[str], step: int) -> float:
        """Clip the gradient in place; returns its norm before."""
        parameters = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        total = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        norm = total.full_tensor() if isinstance(total, DTensor) else total
        check_gradient(float(norm), pair_ids, step)
        clip_grads_with_norm_(parameters, self._params.max_grad_norm, norm)
        return float(norm)

    @property
    def _tolerance(self) -> float:
        chosen = self._params.reference_tolerance
        return TOLERANCES[self._params.dtype] if chosen is None else chosen


class _Tally:
    """Figures of a step or an evaluation, and which pairs broke them: nothing is read back before the end."""

    def __init__(self, device: torch.device) -> None:
        self._figures = Figures(device)
        self._finite: list[tuple[MicroBatch, Tensor]] = []

    def add(self, batch: MicroBatch, outcome: PairLosses, judged: Pairs) -> PairLosses:
        finite = self._figures.add(outcome, judged, batch.pair_weights)
        self._finite.append((batch, finite))
        return outcome

    def means(self, step: int) -> dict[str, float]:
        """Raises NonFiniteError, in every process, that names the pairs of all processes."""
        means = self._figures.means()
        broken = [
            pair.pair_id
            for batch, finite in self._finite
            for pair, good in zip(batch.pairs, finite.tolist(), strict=True)
            if not good
        ]
        check_figures(means, broken, step)
        return means


def _optimizer(model: nn.Module, params: TrainParams) -> torch.optim.Optimizer:
    """Vectors (norms, biases) do not decay, as in transformers' trainer."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [matrix for matrix in trained if matrix.ndim >= 2], "weight_decay": params.weight_decay},
        {"params": [vector for vector in trained if vector.ndim < 2], "weight_decay": 0.0},
    ]
    if params.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=params.learning_rate, eps=params.adam_epsilon)
    betas = params.adam_beta1, params.adam_beta2
    return torch.optim.AdamW(groups, lr=params.learning_rate, betas=betas, eps=params.adam_epsilon, fused=True)


def _peak_memory(device: torch.device) -> int:
    """Bytes: the CUDA allocator's peak, or the largest resident size of the process."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident()

"""The policy with its optimizer and objective: what one optimizer step and one evaluation do."""

import math
import resource
import time
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from pipeline.config.train import TrainParams
from pipeline.objectives.registry import Objective
from pipeline.objectives.response import PairLosses, Response
from pipeline.train.batch import MicroBatch, micro_batches
from pipeline.train.check import TOLERANCES, check_gradient, check_losses, check_reference
from pipeline.train.figures import Figures
from pipeline.train.fsdp import all_sum, largest
from pipeline.train.pairs import TrainedPair
from pipeline.train.schedule import learning_rate


class Learner:
    """Every method is called by all processes together, each with its own share of the pairs."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        params: TrainParams,
        total_steps: int,
        micro_batch_pairs: int,
        device: torch.device,
    ) -> None:
        self.model = model
        self.optimizer = _adamw(model, params)
        self._objective = objective
        self._params = params
        self._total_steps = total_steps
        self._size = micro_batch_pairs
        self._device = device

    def step(self, step: int, pairs: Sequence[TrainedPair]) -> dict[str, float]:
        """Optimizer step number `step`, counted from 0, on this process's pairs of the global batch; its figures.

        Raises ModelError when the first step's log-probs are not the cached reference's, NonFiniteError before anything
        non-finite reaches the weights.
        """
        began = time.monotonic()
        torch.manual_seed((self._params.seed * 2**32 + step) % 2**63)
        figures = Figures(self._device)
        for batch in self._micro_batches(pairs):
            logps = self._log_probs(batch)
            outcome, chosen, rejected = self._judge(logps, batch, step)
            if step == 0:
                check_reference(logps, batch, self._tolerance)
            (torch.dot(outcome.losses, batch.pair_weights) / self._params.global_batch_pairs).backward()
            figures.add(outcome, chosen, rejected, batch.pair_weights)
        norm = self._clip([pair.pair_id for pair in pairs], step)
        rate = learning_rate(step, self._total_steps, self._params.warmup_ratio, self._params.learning_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        tokens = int(all_sum(torch.tensor(sum(pair.tokens for pair in pairs), device=self._device)))
        return {
            **figures.means(),
            "grad_norm": norm,
            "learning_rate": rate,
            "tokens": tokens,
            "tokens_per_s": tokens / (time.monotonic() - began),
            "memory_mib": _peak_memory(self._device) / 2**20,
        }

    @torch.no_grad()
    def evaluate(self, blocks: Iterable[Sequence[TrainedPair]], step: int) -> dict[str, float]:
        """Figures over all pairs of all blocks; as many blocks in every process, some of them empty perhaps."""
        figures = Figures(self._device)
        for pairs in blocks:
            for batch in self._micro_batches(pairs):
                figures.add(*self._judge(self._log_probs(batch), batch, step), batch.pair_weights)
        return figures.means()

    def _micro_batches(self, pairs: Sequence[TrainedPair]) -> list[MicroBatch]:
        # A process with fewer micro-batches than others would leave them waiting in their collectives.
        count = largest(math.ceil(len(pairs) / self._size), self._device)
        return micro_batches(pairs, self._size, self._device, count)

    def _log_probs(self, batch: MicroBatch) -> Tensor:
        logps: Tensor = self.model(batch.input_ids, batch.response_mask, batch.attention_mask)
        return logps

    def _judge(self, logps: Tensor, batch: MicroBatch, step: int) -> tuple[PairLosses, Response, Response]:
        chosen, rejected = batch.responses(logps)
        outcome = self._objective.loss(chosen, rejected, self._params.beta)
        check_losses(outcome, [pair.pair_id for pair in batch.pairs], step)
        return outcome, chosen, rejected

    def _clip(self, pair_ids: Sequence[str], step: int) -> float:
        """Clip the gradient in place; returns its norm before."""
        parameters = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        total = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        norm = total.full_tensor() if isinstance(total, DTensor) else total
        if not math.isfinite(float(norm)):
            everyone: list[list[str]] = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(everyone, list(pair_ids))
            check_gradient(float(norm), [pair_id for ids in everyone for pair_id in ids], step)
        clip_grads_with_norm_(parameters, self._params.max_grad_norm, norm)
        return float(norm)

    @property
    def _tolerance(self) -> float:
        chosen = self._params.reference_tolerance
        return TOLERANCES[self._params.dtype] if chosen is None else chosen


def _adamw(model: nn.Module, params: TrainParams) -> torch.optim.AdamW:
    """AdamW; vectors (norms, biases) do not decay, as in transformers' trainer."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": params.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=params.learning_rate,
        betas=(params.adam_beta1, params.adam_beta2),
        eps=params.adam_epsilon,
        fused=True,
    )


def _peak_memory(device: torch.device) -> int:
    """Bytes: the CUDA allocator's peak, or the largest resident size of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

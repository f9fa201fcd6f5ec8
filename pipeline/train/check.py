"""What stops a run before it does harm: a policy that is not the cached reference, numbers that are not finite."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.errors import ModelError, NonFiniteError
from pipeline.objectives.response import PairLosses
from pipeline.train.batch import MicroBatch

TOLERANCES = {"float32": 1e-4, "bfloat16": 0.5}
"""Largest difference of one token's log-prob. bfloat16 activations depend on how sequences are padded together
(measured: up to 0.16)."""
_SHOWN = 10


@torch.no_grad()
def check_reference(logps: Tensor, batch: MicroBatch, tolerance: float) -> None:
    """The policy's first log-probs [2B, S] must be the cached ones. Raises ModelError that names the worst pair."""
    difference = torch.where(batch.response_mask, (logps - batch.ref_logps).abs(), 0.0).amax(dim=-1)
    difference = difference * torch.cat([batch.pair_weights, batch.pair_weights])
    worst = int(difference.argmax())
    if not float(difference[worst]) <= tolerance:
        name = batch.pairs[worst % len(batch.pairs)].pair_id
        side = "chosen" if worst < len(batch.pairs) else "rejected"
        raise ModelError(
            f"pair {name}: before the first step the policy's log-prob of a {side} token differs by"
            f" {float(difference[worst]):.3g} from the cached reference, more than train.reference_tolerance"
            f" ({tolerance:g}); the reference was made with another model, dtype or tokens. Run `dvc repro -f"
            " reference`, or set train.reference_tolerance if this difference is known to be rounding"
        )


def check_losses(outcome: PairLosses, pair_ids: Sequence[str], step: int) -> None:
    """Loss and rewards of every pair must be finite. Raises NonFiniteError that names the pairs."""
    values = torch.stack([outcome.losses, outcome.chosen_rewards, outcome.rejected_rewards])
    finite = torch.isfinite(values).all(dim=0)
    if not bool(finite.all()):
        broken = [pair_id for pair_id, good in zip(pair_ids, finite.tolist(), strict=True) if not good]
        raise NonFiniteError(f"step {step}: loss or rewards are not finite for {_list(broken)}. {_REMEDY}")


def check_gradient(norm: float, pair_ids: Sequence[str], step: int) -> None:
    """The gradient must be finite. Raises NonFiniteError that names the pairs of the step."""
    if not norm < float("inf"):
        raise NonFiniteError(f"step {step}: the gradient is not finite over {_list(pair_ids)}. {_REMEDY}")


_REMEDY = (
    "The last checkpoint is intact. Leave the pairs out, lower train.learning_rate or train.beta, or train in float32"
)


def _list(pair_ids: Sequence[str]) -> str:
    shown = ", ".join(pair_ids[:_SHOWN])
    more = f" and {len(pair_ids) - _SHOWN} more" if len(pair_ids) > _SHOWN else ""
    return f"pair{'s' if len(pair_ids) != 1 else ''} {shown}{more}"

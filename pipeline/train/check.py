"""What stops a run before it does harm: a policy that is not the cached reference, numbers that are not finite."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist

from pipeline.errors import ModelError, NonFiniteError
from pipeline.objectives.response import Pairs, log_ratios
from pipeline.train.batch import MicroBatch

TOLERANCES = {"float32": 1e-4, "bfloat16": 0.5}
"""Largest difference of one token's log-prob. bfloat16 activations depend on what is computed together
(measured: up to 0.16)."""
_SHOWN = 10


@torch.no_grad()
def check_reference(judged: Pairs, batch: MicroBatch, tolerance: float) -> None:
    """The policy's first log-probs must be the cached ones, where there are some.

    Raises ModelError that names the worst pair.
    """
    sides = {"chosen": judged.chosen, "rejected": judged.rejected, "third": judged.third}
    given = {name: side for name, side in sides.items() if side is not None and side.ref_logps is not None}
    if not given:
        return
    difference = torch.stack([log_ratios(side).abs().amax(dim=-1) * batch.pair_weights for side in given.values()])
    worst = int(difference.argmax())
    number, pair = divmod(worst, len(batch.pairs))
    if not float(difference[number, pair]) <= tolerance:
        name, side = batch.pairs[pair].pair_id, list(given)[number]
        raise ModelError(
            f"pair {name}: before the first step the policy's log-prob of a {side} token differs by"
            f" {float(difference[number, pair]):.3g} from the cached reference, more than train.reference_tolerance"
            f" ({tolerance:g}); the reference was made with another model, dtype or tokens. Run `dvc repro -f"
            " reference`, or set train.reference_tolerance if this difference is known to be rounding"
        )


def check_figures(means: Mapping[str, float], broken: Sequence[str], step: int) -> None:
    """Loss and rewards of every pair must be finite, and so must their means over all processes.

    Raises NonFiniteError, in every process, that names the pairs. `broken`: this process's, where it has some.
    """
    if not all(math.isfinite(value) for value in means.values()):
        raise NonFiniteError(f"step {step}: loss or rewards are not finite for {_list(_of_all(broken))}. {_REMEDY}")


def check_gradient(norm: float, pair_ids: Sequence[str], step: int) -> None:
    """The gradient's norm over all processes must be finite. Raises NonFiniteError that names the pairs of the step.

    `pair_ids`: this process's.
    """
    if not math.isfinite(norm):
        raise NonFiniteError(f"step {step}: the gradient is not finite over {_list(_of_all(pair_ids))}. {_REMEDY}")


def _of_all(pair_ids: Sequence[str]) -> list[str]:
    """All processes' ids; every process must call it."""
    everyone: list[list[str]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(everyone, list(pair_ids))
    return [pair_id for ids in everyone for pair_id in ids]


_REMEDY = (
    "The last checkpoint is intact. Leave the pairs out, lower train.learning_rate or train.beta, or train in float32"
)


def _list(pair_ids: Sequence[str]) -> str:
    shown = ", ".join(pair_ids[:_SHOWN])
    more = f" and {len(pair_ids) - _SHOWN} more" if len(pair_ids) > _SHOWN else ""
    return f"pair{'s' if len(pair_ids) != 1 else ''} {shown}{more}"

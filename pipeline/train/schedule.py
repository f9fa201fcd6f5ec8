"""Learning rate by step. Without state: nothing has to be saved."""

import math

from pipeline.config.train import TrainParams


def learning_rate(step: int, total_steps: int, params: TrainParams) -> float:
    """Rate of the optimizer step number `step`, counted from 0: a linear warmup, then `params.schedule`.

    cosine: the values of `transformers.get_cosine_schedule_with_warmup`, which the official code of AttentionPO trains
    with: the first step of a warmup has rate 0, and the rate ends at 0.
    constant: min(1, (step + 1) / (warmup + 1)) of the peak, as the code of TDPO, TI-DPO and TIS-DPO has it.
    """
    warmup = math.ceil(total_steps * params.warmup_ratio) if params.warmup_steps is None else params.warmup_steps
    peak = params.learning_rate
    if params.schedule == "constant":
        return peak * min(1.0, (step + 1) / (warmup + 1))
    if step < warmup:
        return peak * step / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    return peak * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


def total_steps(pairs: int, global_batch_pairs: int, epochs: int, max_steps: int | None) -> int:
    """Optimizer steps of a run; the incomplete last batch of an epoch is dropped."""
    steps = (pairs // global_batch_pairs) * epochs
    return steps if max_steps is None else min(steps, max_steps)

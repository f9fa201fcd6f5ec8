"""Learning rate by step: linear warmup, then half a cosine down to 0. Without state: nothing has to be saved."""

import math


def learning_rate(step: int, total_steps: int, warmup_ratio: float, peak: float) -> float:
    """Rate of the optimizer step number `step`, counted from 0.

    The values are those of `transformers.get_cosine_schedule_with_warmup`, which the official code trains with: the
    first step of a warmup has rate 0. Warmup lasts ceil(total_steps * warmup_ratio) steps.
    """
    warmup = math.ceil(total_steps * warmup_ratio)
    if step < warmup:
        return peak * step / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    return peak * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


def total_steps(pairs: int, global_batch_pairs: int, epochs: int, max_steps: int | None) -> int:
    """Optimizer steps of a run; the incomplete last batch of an epoch is dropped."""
    steps = (pairs // global_batch_pairs) * epochs
    return steps if max_steps is None else min(steps, max_steps)

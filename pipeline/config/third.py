"""Section `third`: how the anchor, TI-DPO's third response, is sampled (METHODS 3.2; defaults of the official code)."""

from typing import Annotated

from pydantic import Field

from pipeline.config.base import Section


class ThirdParams(Section):
    """One sample for each prompt, from the policy's first weights."""

    max_new_tokens: Annotated[int, Field(ge=1)] = 64
    """Longest sample; the end of turn counts."""
    temperature: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 0.8
    """The logits are divided by it before anything else."""
    top_k: Annotated[int, Field(ge=1)] | None = 50
    """Only the so many most likely tokens can be drawn; none: all."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """Of these, the fewest that have this share of their probability, the most likely first; 1: all."""
    seed: int = 42
    """With the pair's id it fixes the draws of its sample."""

"""Section `evaluate`: held-out preference metrics and sample answers."""

from typing import Annotated

from pydantic import Field

from pipeline.config.base import Section


class EvaluateParams(Section):
    """Policy against start on the test pairs."""

    bootstrap_samples: Annotated[int, Field(ge=100)] = 1000
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    seed: int = 42
    prompts: list[str] = Field(default=["What is the capital of France?", "Write a two-line poem about rain."])
    """Answered greedily before and after training."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 64

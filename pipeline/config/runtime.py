"""Section `runtime`: what cannot change a result beyond float tolerance. No stage lists it, so it re-runs nothing."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.base import Section

Count = Annotated[int, Field(ge=1)]


class RuntimeParams(Section):
    """Devices, batch sizes and logging."""

    backend: Literal["transformers"] = "transformers"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Count | None = None
    """CPU threads of torch; none: torch's own choice."""
    token_budget: Count = 8192
    """Tokens, padding included, in one forward batch of `extract` and `reference`."""
    processes: Count = 1
    """Training processes, launched by torchrun when more than one."""
    micro_batch_pairs: Count = 4
    """Pairs in one forward and backward pass of one process."""
    activation_checkpointing: bool = False
    allow_mixed: bool = False
    """Let a run go on with another backend or device kind than the one that began it."""
    log_level: Literal["DEBUG", "INFO", "WARNING"] = "INFO"

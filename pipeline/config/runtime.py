"""Section `runtime`: what cannot change a result beyond float tolerance. No stage lists it, so it re-runs nothing."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.base import Section

Count = Annotated[int, Field(ge=1)]


class RuntimeParams(Section):
    """Devices, batch sizes and logging."""

    backend: Literal["transformers", "vllm"] = "transformers"
    """Of `extract`. vllm: prefix caching and many prompts at once; tested with vLLM 0.32.0, and in every run its first
    rows are compared with those of transformers."""
    tensor_parallel: Count = 1
    """Devices (on the CPU: processes) that share one judge under vLLM. It divides the number of heads."""
    vllm_kv_cache_gib: Annotated[float, Field(gt=0)] | None = None
    """Memory of vLLM's keys and values on each device, GiB; every layer of `extract.layers` takes 1 / (2 · number of
    the judge's layers) of it more. None: on CUDA what `gpu_memory_utilization` leaves, on the CPU 4 or a quarter of
    what is free."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of each CUDA device's memory that vLLM takes, captured keys included."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Count | None = None
    """CPU threads of torch; none: torch's own choice."""
    token_budget: Count = 8192
    """Tokens, padding included, in one forward batch of `extract` and `reference`; under vLLM, tokens in one step.
    Attention rollout keeps the queries and keys of all layers of a batch, and wants fewer."""
    workers: Count | None = None
    """Processes of `extract` and `reference`; none: one for each CUDA device (with `tensor_parallel`: for each group of
    them), one on the CPU. Under transformers their number changes no byte where `threads` is set; where it is not,
    they share the cores."""
    processes: Count = 1
    """Training processes, launched by torchrun when more than one."""
    micro_batch_pairs: Count = 4
    """Pairs in one forward and backward pass of one process."""
    activation_checkpointing: bool = False
    allow_mixed: bool = False
    """Let a run go on with another backend or device kind than the one that began it."""
    log_level: Literal["DEBUG", "INFO", "WARNING"] = "INFO"

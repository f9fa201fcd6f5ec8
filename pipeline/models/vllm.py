"""vLLM as a library: started without network, plugins or telemetry.

Prefix caching, chunked prefill and preemption stay on. With one device everything runs in this process.
"""

import os
import warnings
from typing import Any

import psutil

from pipeline.errors import ModelError
from pipeline.models.manifest import Manifest

GIB = 2**30
CPU_CACHE_GIB = 4.0
CPU_BLOCK = 32
"""Tokens in a block of the cache on CPU, the smallest its kernels take: prefixes are shared by whole blocks."""
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in this process; workers too where there is one device
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # the capture reads the state of the first one
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_PLUGINS": "",  # no code that other packages register
    "TORCHDYNAMO_DISABLE": "1",  # the model runs eagerly; what is left would be compiled for seconds at every start
}
DEFAULTS = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    # Without these every process gives its large blocks back to the system after each step and asks for them again.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(8 * 2**30),
}
"""Set where the user has not."""


def prepare_environment(cpu_ranks: int = 1) -> None:
    """What vLLM reads when it is imported, here and in its workers."""
    os.environ.update(ENVIRONMENT)
    defaults = dict(DEFAULTS)
    if cpu_ranks > 1:
        # vLLM would bind each rank to a memory node of its own and refuse a machine with fewer of them.
        threads = max(1, len(os.sched_getaffinity(0)) // cpu_ranks)
        defaults |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def engine_settings(
    manifest: Manifest,
    dtype: str,
    device: str,
    tensor_parallel: int,
    batched_tokens: int,
    kv_cache_gib: float | None,
    memory_share: float,
    mirrors: float = 0.0,
) -> dict[str, Any]:
    """What vLLM is started with, whatever it is for.

    Args:
        batched_tokens: positions in one step; longer prompts are computed in chunks.
        kv_cache_gib: of each device; None: on CUDA what `memory_share` leaves, on CPU CPU_CACHE_GIB.
        mirrors: what is kept of keys besides vLLM's own cache, as a share of it.
    """
    return {
        "model": str(manifest.path),
        "dtype": dtype,
        "seed": 0,
        "load_format": "safetensors",
        "trust_remote_code": False,
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "max_model_len": -1,  # the model's context, or what the cache can hold of it
        "max_num_batched_tokens": batched_tokens,
        "max_num_seqs": min(256, batched_tokens),
        "enable_prefix_caching": True,
        "enable_chunked_prefill": True,
        "async_scheduling": False,
        # One group of layers: the mirror of a layer then costs 1 / (2 · layers) of the cache in every architecture.
        "disable_hybrid_kv_cache_manager": True,
        "enforce_eager": True,
        "tensor_parallel_size": tensor_parallel,
        "distributed_executor_backend": "uni" if tensor_parallel == 1 else "mp",
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        **_memory_settings(device, kv_cache_gib, memory_share, mirrors),
    }


def start_engine(settings: dict[str, Any]) -> Any:
    import torch._dynamo.config

    torch._dynamo.config.disable = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            from vllm import LLM

            return LLM(**settings)
    except (RuntimeError, ValueError, NotImplementedError, AssertionError, OSError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(
            f"vLLM could not start the judge in {settings['model']}: {reason}. For memory, see `runtime."
            "gpu_memory_utilization` and `runtime.vllm_kv_cache_gib`; or set `runtime.backend: transformers`"
        ) from error


def _memory_settings(device: str, kv_cache_gib: float | None, share: float, mirrors: float) -> dict[str, Any]:
    """vLLM's memory settings; `mirrors`: what the captured keys take besides, as a share of its cache."""
    if kv_cache_gib is None and device == "cuda":
        return {"gpu_memory_utilization": share / (1 + mirrors)}
    if kv_cache_gib is None:
        kv_cache_gib = min(CPU_CACHE_GIB, psutil.virtual_memory().available / GIB / 4)
    settings: dict[str, Any] = {"kv_cache_memory_bytes": int(kv_cache_gib * GIB)}
    return settings if device == "cuda" else settings | {"block_size": CPU_BLOCK}

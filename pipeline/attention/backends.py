"""The extraction backends by the name that `runtime.backend` gives them."""

from collections.abc import Callable, Sequence

import torch
from transformers import PretrainedConfig

from pipeline.attention.architectures import check_architecture, resolve_heads, resolve_layers
from pipeline.attention.backend import Backend
from pipeline.attention.transformers_backend import TransformersBackend
from pipeline.attention.verdict import verdict_ids
from pipeline.config.extract import ExtractParams
from pipeline.config.runtime import RuntimeParams
from pipeline.models.load import load_config, load_model, load_tokenizer
from pipeline.models.manifest import Manifest

BackendFactory = Callable[
    [RuntimeParams, ExtractParams, Manifest, torch.device, tuple[int, int], Sequence[int]], Backend
]


def check_backend(
    runtime: RuntimeParams, params: ExtractParams, manifest: Manifest, device: torch.device
) -> tuple[int, int]:
    """Whether this judge can be read in this way; loads no weights. Returns the tokens of the verdicts A and B.

    Raises ConfigError for a backend that is not installed as tested; ModelError for an architecture, layer,
    head or tokenizer that it cannot work with.
    """
    config = load_config(manifest)
    check_architecture(config)
    if params.source == "attention":
        resolve_layers(params.layers, config.num_hidden_layers)
    resolve_heads(params.heads, config.num_attention_heads)
    check_engine(runtime, config, device)
    return verdict_ids(load_tokenizer(manifest), manifest.chat_template)


def check_engine(runtime: RuntimeParams, config: PretrainedConfig, device: torch.device) -> None:
    """Whether `runtime.backend` is installed as tested, and computes this judge. Raises as `check_backend`."""
    if runtime.backend == "vllm":
        from pipeline.attention.vllm.check import check_installed, check_judge

        check_installed(device.type)
        check_judge(config, runtime.tensor_parallel)


def positions_after(runtime: RuntimeParams, params: ExtractParams) -> int:
    """Positions that a judge needs after its prompt: for the verdict's own token, and for the one that vLLM samples."""
    return int(params.query == "verdict_token_row") + int(runtime.backend == "vllm")


def open_backend(
    runtime: RuntimeParams,
    params: ExtractParams,
    manifest: Manifest,
    device: torch.device,
    header: Sequence[int] = (),
) -> Backend:
    """The judge of `manifest`, loaded and ready. `header`: tokens that the prompts of the run begin with.

    Raises what `check_backend` raises, before any weight is loaded.
    """
    letters = check_backend(runtime, params, manifest, device)
    return BACKENDS[runtime.attention_backend](runtime, params, manifest, device, letters, header)


def _transformers(
    runtime: RuntimeParams,
    params: ExtractParams,
    manifest: Manifest,
    device: torch.device,
    letters: tuple[int, int],
    header: Sequence[int],
) -> Backend:
    return TransformersBackend(
        load_model(manifest, params.dtype, device),
        layers=params.layers,
        verdict_ids=letters,
        token_budget=runtime.token_budget,
        heads=params.heads,
        query=params.query,
        source=params.source,
        verdicts=params.verdicts,
        header=header,
    )


def _vllm(
    runtime: RuntimeParams,
    params: ExtractParams,
    manifest: Manifest,
    device: torch.device,
    letters: tuple[int, int],
    header: Sequence[int],
) -> Backend:
    from pipeline.attention.vllm.backend import VllmBackend

    # Its prefix cache finds the header by itself.
    return VllmBackend(manifest, params, runtime, device, letters)


BACKENDS: dict[str, BackendFactory] = {"transformers": _transformers, "vllm": _vllm}

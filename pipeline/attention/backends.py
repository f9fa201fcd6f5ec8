"""The extraction backends by the name that `runtime.backend` gives them."""

from collections.abc import Callable

import torch

from pipeline.attention.architectures import check_architecture, resolve_heads, resolve_layers
from pipeline.attention.backend import Backend
from pipeline.attention.transformers_backend import TransformersBackend
from pipeline.attention.verdict import verdict_ids
from pipeline.config.extract import ExtractParams
from pipeline.config.runtime import RuntimeParams
from pipeline.errors import ConfigError
from pipeline.models.load import load_config, load_model, load_tokenizer
from pipeline.models.manifest import Manifest

BackendFactory = Callable[[RuntimeParams, ExtractParams, Manifest, torch.device], Backend]


def open_backend(runtime: RuntimeParams, params: ExtractParams, manifest: Manifest, device: torch.device) -> Backend:
    """The judge of `manifest`, loaded and ready.

    Raises ConfigError for an unknown backend; ModelError for an architecture, layer or tokenizer that it cannot work
    with, before any weight is loaded.
    """
    if runtime.backend not in BACKENDS:
        raise ConfigError(f"`runtime.backend: {runtime.backend}` is unknown; choose one of {sorted(BACKENDS)}")
    return BACKENDS[runtime.backend](runtime, params, manifest, device)


def _transformers(
    runtime: RuntimeParams, params: ExtractParams, manifest: Manifest, device: torch.device
) -> TransformersBackend:
    config = load_config(manifest)
    check_architecture(config)
    resolve_layers(params.layers, config.num_hidden_layers)
    resolve_heads(params.heads, config.num_attention_heads)
    letters = verdict_ids(load_tokenizer(manifest), manifest.chat_template)
    return TransformersBackend(
        load_model(manifest, params.dtype, device),
        layers=params.layers,
        verdict_ids=letters,
        token_budget=runtime.token_budget,
        heads=params.heads,
        query=params.query,
        verdicts=params.verdicts,
    )


BACKENDS: dict[str, BackendFactory] = {"transformers": _transformers}

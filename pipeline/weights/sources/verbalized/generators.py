"""The judge as a generator, by the name that `runtime.backend` gives."""

from collections.abc import Collection

import torch

from pipeline.config.runtime import RuntimeParams
from pipeline.models.generation.base import Generator
from pipeline.models.generation.batches import TransformersGenerator
from pipeline.models.load import load_model
from pipeline.models.manifest import Manifest


def open_generator(
    manifest: Manifest,
    stops: Collection[int],
    max_new_tokens: int,
    dtype: str,
    runtime: RuntimeParams,
    device: torch.device,
) -> Generator:
    """The model of `manifest`, loaded and ready to answer greedily; `stops` end an answer.

    Raises ConfigError for a vLLM that is not installed as tested; ModelError for a model that cannot be loaded, or that
    vLLM computes otherwise than transformers does.
    """
    if runtime.backend == "vllm":
        from pipeline.weights.sources.verbalized.vllm_generator import VllmGenerator

        return VllmGenerator(manifest, stops, max_new_tokens, dtype, runtime, device)
    model = load_model(manifest, dtype, device)
    return TransformersGenerator(model, stops, max_new_tokens, runtime.token_budget)

"""The judge as a generator: in vLLM where `runtime.backend` says so, or says nothing and vLLM is there."""

from collections.abc import Callable, Collection, Sequence
from typing import Literal

import torch

from pipeline.attention.architectures import check_architecture
from pipeline.attention.vllm.check import check_installed, check_judge
from pipeline.config.runtime import RuntimeParams
from pipeline.errors import PipelineError
from pipeline.models.budget import TokenBudget
from pipeline.models.chat import Chat
from pipeline.models.generation.base import Generator
from pipeline.models.generation.batches import TransformersGenerator
from pipeline.models.load import context_length, load_config, load_model
from pipeline.models.manifest import Manifest
from pipeline.weights.sources.verbalized.partition import Partitions

GeneratorAbout = Callable[[Sequence[str], Sequence[Sequence[int]]], Generator]
"""A generator for prompts about texts: the texts, and the prompts, in one order."""


def answer_backend(runtime: RuntimeParams, manifest: Manifest, device: torch.device) -> Literal["transformers", "vllm"]:
    """What `runtime.backend` comes to for the free answers of the model of `manifest`; loads no weights.

    auto: vLLM where it is installed as tested for this device, and is known to compute this model as transformers does.
    """
    if runtime.backend != "auto":
        return runtime.backend
    try:
        config = load_config(manifest)
        check_installed(device.type)
        check_architecture(config)
        check_judge(config, runtime.tensor_parallel)
    except PipelineError:
        return "transformers"
    return "vllm"


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
    if answer_backend(runtime, manifest, device) == "vllm":
        from pipeline.weights.sources.verbalized.vllm_generator import VllmGenerator

        return VllmGenerator(manifest, stops, max_new_tokens, dtype, runtime, device)
    model = load_model(manifest, dtype, device)
    return TransformersGenerator(model, stops, max_new_tokens, TokenBudget(runtime.token_budget, device))


def open_partitions(
    manifest: Manifest, chat: Chat, max_new_tokens: int, dtype: str, runtime: RuntimeParams, device: torch.device
) -> GeneratorAbout:
    """The model of `manifest`, loaded; what it answers about a text is a partition of the text (`partition`).

    Raises ModelError for a model that cannot be loaded.
    """
    model = load_model(manifest, dtype, device)
    budget = TokenBudget(runtime.token_budget, device)
    stop = chat.end_of_turn_id
    context = context_length(model.config)

    def about(texts: Sequence[str], prompts: Sequence[Sequence[int]]) -> Generator:
        rooms = [min(max_new_tokens, context - len(prompt)) for prompt in prompts]
        choose = Partitions(chat, texts, rooms, stop)
        return TransformersGenerator(model, {stop}, max_new_tokens, budget, choose)

    return about

"""LoRA (Hu et al. 2021, arXiv 2106.09685), by `peft`: trained low-rank adapters beside frozen weights.

A linear map W x becomes W x + s B A x with s = alpha / rank, or alpha / sqrt(rank) under rsLoRA. B begins at 0, so
before the first step the policy is the start, bit for bit, and the cached reference holds. W is held in the training
dtype: it never changes, so it needs no float32 master. A and B are float32 masters, and alone have gradients and
moments.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, TaskType, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.config.train import LoraParams
from pipeline.errors import ConfigError
from pipeline.io.atomic import write_json
from pipeline.models.logps import LogProbModel
from pipeline.models.manifest import Manifest
from pipeline.models.packed.layout import PackedRow

ADAPTER = "default"
"""peft's name of the one adapter, a part of its weights' names in a model and of none in a file."""
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"


def add_adapters(model: PreTrainedModel, params: LoraParams, seed: int) -> None:
    """Put adapters beside the linear maps that `params` names, in place, and freeze everything else.

    The masters of A are drawn from `seed` on the CPU, the same in every process and on every device.

    Raises ConfigError when the model's body has no linear map of a name.
    """
    targets = _targets(model, params)
    config = LoraConfig(
        r=params.rank,
        lora_alpha=params.alpha,
        use_rslora=params.use_rslora,
        target_modules=targets,
        task_type=TaskType.CAUSAL_LM,
    )
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed % 2**63)
        inject_adapter_in_model(config, model, ADAPTER)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # peft makes it of the base's dtype
    model.eval()


@contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """Within it the model is its start: the reference, without a second model. No gradient is recorded.

    For objectives that need the reference's logits, not its cached log-probs alone.
    Leave it before a backward pass that recomputes activations: what is recomputed must be what was computed.
    """
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    before = [layer.disable_adapters for layer in layers]
    # peft's own switch also turns `requires_grad` off and on, on whichever of FSDP's copies of a parameter is in place:
    # the other copy would stay frozen, and training would stop in silence.
    try:
        for layer in layers:
            layer._disable_adapters = True
        with torch.no_grad():
            yield
    finally:
        for layer, was_off in zip(layers, before, strict=True):
            layer._disable_adapters = was_off


class AdapterOff:
    """The start, as a reference beside the policy: the policy's own weights without their adapters."""

    def __init__(self, policy: LogProbModel) -> None:
        self._policy = policy

    @property
    def head(self) -> nn.Linear:
        return self._policy.head

    def hidden(self, row: PackedRow) -> Tensor:
        """As LogProbModel.hidden; without gradient."""
        with adapter_off(self._policy):
            return self._policy.hidden(row)


def merged_weights(weights: Mapping[str, Tensor], params: LoraParams, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights of the plain model: W + s B A, added in float32 and rounded once to `dtype`.

    Args:
        weights: those of the model with adapters, whole, by name.
    """
    scale = params.alpha / (math.sqrt(params.rank) if params.use_rslora else params.rank)
    merged = {}
    for name, value in weights.items():
        if _is_adapter(name):
            continue
        place, found, _ = name.rpartition("base_layer.weight")
        if found:
            factors = (weights[f"{place}lora_{factor}.{ADAPTER}.weight"].float() for factor in "BA")
            value = (value.float() + scale * torch.matmul(*factors)).to(dtype)
        merged[name.replace(".base_layer.", ".")] = value
    return merged


def write_adapter(folder: Path, model: PreTrainedModel, weights: Mapping[str, Tensor], start: Manifest) -> None:
    """An adapter as peft, transformers and vLLM load it: float32 weights, and a config that names the start.

    Args:
        weights: those of the model with adapters, whole, by name; of others than the adapters' none is needed.
    """
    adapter = {
        # peft reads names as those of its own model around this one.
        f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}": value.contiguous()
        for name, value in weights.items()
        if _is_adapter(name)
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(adapter, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config = model.peft_config[ADAPTER]
    on_hub = start.source == "hub"
    write_json(
        folder / CONFIG_FILE,
        {
            **config.to_dict(),
            "base_model_name_or_path": start.repo if on_hub else str(start.path),
            "revision": start.revision if on_hub else None,
            "inference_mode": True,
            # peft holds a set, which has another order in every process.
            "target_modules": sorted(config.target_modules),
        },
    )


def _targets(model: PreTrainedModel, params: LoraParams) -> list[str]:
    """Names of the linear modules that get an adapter, sorted; the output head is not in the model's body."""
    body = model.base_model.named_modules()
    there = {name.rpartition(".")[2] for name, module in body if isinstance(module, nn.Linear)}
    wanted = there if params.target_modules == "all-linear" else set(params.target_modules)
    if not wanted <= there or not wanted:
        raise ConfigError(
            f"train.lora.target_modules: {', '.join(sorted(wanted - there)) or 'all-linear'}: the start has no such"
            f" linear module for an adapter to stand beside; it has {', '.join(sorted(there)) or 'none at all'}"
            " (embedding and output head take no adapter). Choose of these, or set train.lora to null"
        )
    return sorted(wanted)


def _is_adapter(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name

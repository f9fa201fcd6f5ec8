"""Floating-point operations of forward passes, by the model's shapes: what FLOP utilization is measured in.

A matrix product of [n, a] and [a, b] counts 2 n a b operations; attention counts a query's products with the keys that
it sees, and the mix of their values, and nothing for masked ones. Norms, rotary embedding and softmax are not counted.
"""

import torch
from transformers import PreTrainedModel


class LayerFlops:
    """Counts for one model."""

    def __init__(self, model: PreTrainedModel) -> None:
        config = model.config.get_text_config()
        layers = model.base_model.layers
        self._layer = 2 * sum(weight.numel() for weight in layers[0].parameters() if weight.dim() == 2)
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._score = 4 * config.num_attention_heads * head_dim
        self._head = 2 * model.get_input_embeddings().weight.numel()

    def of(self, positions: int, scores: int, layers: int, heads: int) -> float:
        """`positions` through so many `layers`, `scores` query-key pairs in each, the head at `heads` positions."""
        return float(layers * (positions * self._layer + scores * self._score) + heads * self._head)


PEAK_BFLOAT16 = {"H100": 989e12, "H200": 989e12}
"""Dense bfloat16 operations a second by the product's name, of the SXM modules, from the vendor's data sheets."""


def peak_flops(device: torch.device, dtype: str) -> float | None:
    """What the device can do a second in that type; None where it is not known."""
    if device.type != "cuda" or dtype != "bfloat16":
        return None
    name = torch.cuda.get_device_name(device)
    if any(slower in name for slower in ("PCIe", "NVL")):
        return None
    return next((peak for product, peak in PEAK_BFLOAT16.items() if product in name), None)

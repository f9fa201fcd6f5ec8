"""Activations in the memory of the CPU until the backward pass wants them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

SMALLEST = 2**16
"""Elements; what is smaller stays where it is."""

_Packed = Tensor | tuple[torch.device, Tensor]


@contextmanager
def offloaded(device: torch.device) -> Iterator[None]:
    """Within it, autograd keeps the activations that it saves on the CPU. Parameters, which stay anyway, are left."""
    pin = device.type == "cuda"

    def pack(tensor: Tensor) -> _Packed:
        owner = tensor if tensor._base is None else tensor._base
        if isinstance(owner, nn.Parameter) or tensor.numel() < SMALLEST:
            return tensor
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pin)
        # The copy back is queued behind this one on the same stream, so neither has to be waited for.
        return tensor.device, copy.copy_(tensor, non_blocking=pin)

    def unpack(packed: _Packed) -> Tensor:
        return packed if isinstance(packed, Tensor) else packed[1].to(packed[0], non_blocking=pin)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield

"""Mixed precision of a process alone: float32 masters, and copies of the training dtype that passes run on.

FSDP2 does the same for several processes. For one it would copy every weight and gradient several times over without
having anybody to exchange them with: a third of a small model's step, and the gradients twice in memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class ComputeWeights:
    """Stand-ins for the trained float32 parameters of a module, all of one dtype.

    In float32, and where FSDP2 holds the parameters, there is nothing to stand in for.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        self._masters: list[nn.Parameter] = []
        self._copies: list[nn.Parameter] = []
        self._places: list[tuple[nn.Module, str, int]] = []
        if dtype == torch.float32:
            return
        numbers: dict[nn.Parameter, int] = {}
        for owner in module.modules():
            for name, parameter in owner.named_parameters(recurse=False):
                masters = parameter.dtype == torch.float32 and not isinstance(parameter, DTensor)
                if parameter.requires_grad and masters:
                    # A tied weight has one master, and one copy in both places.
                    number = numbers.setdefault(parameter, len(numbers))
                    if number == len(self._masters):
                        self._add(parameter, dtype)
                    self._places.append((owner, name, number))

    @contextmanager
    def standing_in(self) -> Iterator[None]:
        """Within it the module computes on the copies, and their gradients are added up in the masters' in float32."""
        for master, copy in zip(self._masters, self._copies, strict=True):
            copy.data = master.detach().to(copy.dtype)
        self._put(self._copies)
        try:
            yield
        finally:
            self._put(self._masters)
            for copy in self._copies:
                copy.data = copy.data.new_empty(0)

    def _add(self, master: nn.Parameter, dtype: torch.dtype) -> None:
        copy = nn.Parameter(master.new_empty(0, dtype=dtype))

        def hand_over(of: Tensor) -> None:
            if of.grad is not None:
                if master.grad is None:
                    master.grad = of.grad.float()
                else:
                    master.grad += of.grad
                of.grad = None

        copy.register_post_accumulate_grad_hook(hand_over)
        self._masters.append(master)
        self._copies.append(copy)

    def _put(self, parameters: list[nn.Parameter]) -> None:
        for owner, name, number in self._places:
            owner._parameters[name] = parameters[number]

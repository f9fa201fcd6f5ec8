"""What every capture refuses, in one wording."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from pipeline.errors import ModelError


def refuse_biases(module: nn.Module, given: dict[str, Any]) -> None:
    """Raise ModelError where a layer adds to its attention scores what the rows would lack."""
    biases = sorted(name for name in ("s_aux", "position_bias") if given.get(name) is not None)
    if biases:
        raise ModelError(f"{type(module).__name__} adds {biases} to its attention scores, which the capture lacks")


def went_around(layers: Sequence[int]) -> str:
    """The message about layers that were run, but not seen."""
    return (
        f"layers {list(layers)} ran without passing through the capture; this architecture does not call its "
        "attention through transformers' AttentionInterface, so its rows cannot be taken"
    )

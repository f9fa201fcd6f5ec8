"""The forward pass over whole prompts in right-padded batches: for judges and sources that cannot share prefixes."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from pipeline.attention.flops import LayerFlops
from pipeline.attention.forward.capture import Capture, RowCapture
from pipeline.attention.forward.path import Batch, LeftEarly, Pass
from pipeline.attention.forward.rollout import RolloutCapture
from pipeline.models.batching import token_batches
from pipeline.models.rope import longrope_boundaries
from pipeline.schemas.attention import ROLLOUT


class PlainForward:
    """A ForwardPath (see `pipeline.attention.forward.path`). Call inside `capturing(model)`.

    `appended`: tokens that a second pass adds to every prompt (METHODS A1).
    """

    def __init__(self, model: PreTrainedModel, heads: Sequence[int], appended: int = 0) -> None:
        self._model = model
        self._heads = tuple(heads)
        self._depth = model.config.num_hidden_layers
        self._flops = LayerFlops(model)
        # The longer of the two passes crosses a boundary one token earlier.
        boundaries = longrope_boundaries(model.config)
        self._boundaries = boundaries | {boundary - appended for boundary in boundaries}

    def batches(self, prompts: Sequence[Sequence[int]], budget: int) -> list[Batch]:
        return list(token_batches([len(ids) for ids in prompts], budget, self._boundaries))

    def forward(self, prompts: Sequence[Sequence[int]], layers: Sequence[int], hidden: bool) -> Pass:
        """`layers` may be (ROLLOUT,)."""
        device = self._model.device
        last = [len(ids) - 1 for ids in prompts]
        input_ids = torch.zeros(len(prompts), max(last) + 1, dtype=torch.long)
        for i, ids in enumerate(prompts):
            input_ids[i, : len(ids)] = torch.tensor(ids, dtype=torch.long)
        rollout = tuple(layers) == (ROLLOUT,)
        capture: Capture = RolloutCapture(self._depth, last) if rollout else RowCapture(layers, last, self._heads)
        top = self._depth - 1 if rollout or hidden else max(layers)
        states = None
        try:
            output = self._model.base_model(
                input_ids=input_ids.to(device),
                use_cache=False,
                row_capture=capture,
                leave_after=None if hidden else top,
            )
            at = torch.tensor(last, device=device)
            states = output.last_hidden_state[torch.arange(len(last), device=device), at]
        except LeftEarly:
            pass
        size, length = input_ids.shape
        # Attention left at `top` has not been computed there; a layer is a layer in this count.
        flops = self._flops.of(size * length, size * length * (length + 1) // 2, top + 1, size if hidden else 0)
        return Pass(capture.rows(), states, size * length, flops)

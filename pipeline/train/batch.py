"""Micro-batches: a few pairs as padded tensors, the chosen responses in the first half of the rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.objectives.response import Response
from pipeline.train.pairs import TrainedPair, TrainedResponse

PADDING_ID = 0
"""Any valid id: padding is masked, in attention and in the loss."""


@dataclass(frozen=True)
class MicroBatch:
    """B pairs as 2B sequences `prompt + response`, padded on the right to S tokens."""

    pairs: tuple[TrainedPair, ...]
    input_ids: Tensor
    """[2B, S] int64"""
    attention_mask: Tensor
    """[2B, S] int64, 1 at tokens."""
    response_mask: Tensor
    """[2B, S] bool, True at the trained tokens of the response."""
    weights: Tensor
    """[2B, S] float32, 0 outside the response."""
    ref_logps: Tensor
    """[2B, S] float32, 0 outside the response."""
    lengths: Tensor
    """[2B] float32, |y| of Eq. 5."""
    pair_weights: Tensor
    """[B] float32: 1, or 0 in a filler that only keeps processes in step."""

    def responses(self, logps: Tensor) -> tuple[Response, Response]:
        """Chosen and rejected responses, given the policy's log-probs [2B, S]."""
        halves = [half.chunk(2) for half in (logps, self.response_mask, self.weights, self.lengths, self.ref_logps)]
        chosen, rejected = (Response(*(half[side] for half in halves)) for side in (0, 1))
        return chosen, rejected


def micro_batches(
    pairs: Sequence[TrainedPair], size: int, device: torch.device, count: int | None = None
) -> list[MicroBatch]:
    """Pairs in micro-batches of `size`, alike in length so that little is padded; fillers follow up to `count`."""
    ordered = sorted(pairs, key=lambda pair: (pair.tokens, pair.pair_id), reverse=True)
    batches = [collate(ordered[first : first + size], device) for first in range(0, len(ordered), size)]
    fillers = 0 if count is None else count - len(batches)
    return batches + [collate([_FILLER], device, pair_weight=0.0) for _ in range(fillers)]


def collate(pairs: Sequence[TrainedPair], device: torch.device, pair_weight: float = 1.0) -> MicroBatch:
    """Pairs as tensors on a device."""
    rows = [(pair.prompt_ids, pair.chosen) for pair in pairs] + [(pair.prompt_ids, pair.rejected) for pair in pairs]
    width = max(len(prompt) + len(response.ids) for prompt, response in rows)
    shape = (len(rows), width)
    input_ids = np.full(shape, PADDING_ID, np.int64)
    attention_mask = np.zeros(shape, np.int64)
    response_mask = np.zeros(shape, np.bool_)
    weights = np.zeros(shape, np.float32)
    ref_logps = np.zeros(shape, np.float32)
    for row, (prompt, response) in enumerate(rows):
        begin, end = len(prompt), len(prompt) + len(response.ids)
        input_ids[row, :begin] = prompt
        input_ids[row, begin:end] = response.ids
        attention_mask[row, :end] = 1
        response_mask[row, begin:end] = True
        weights[row, begin:end] = response.weights
        ref_logps[row, begin:end] = response.ref_logps

    def on_device(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    return MicroBatch(
        pairs=tuple(pairs),
        input_ids=on_device(input_ids),
        attention_mask=on_device(attention_mask),
        response_mask=on_device(response_mask),
        weights=on_device(weights),
        ref_logps=on_device(ref_logps),
        lengths=on_device(np.array([response.length for _, response in rows], np.float32)),
        pair_weights=on_device(np.full(len(pairs), pair_weight, np.float32)),
    )


_FILLER_RESPONSE = TrainedResponse(np.zeros(1, np.int64), np.zeros(1, np.float32), np.zeros(1, np.float32), 1.0)
_FILLER = TrainedPair("", np.zeros(1, np.int64), _FILLER_RESPONSE, _FILLER_RESPONSE)

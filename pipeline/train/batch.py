"""Micro-batches: a few pairs in one packed row, with what the loss takes from disk."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.models.batching import packed_batches
from pipeline.models.packed.layout import PackedRow, Prompted, pack
from pipeline.models.response_logps import item_lengths
from pipeline.objectives.response import Response
from pipeline.train.pairs import TrainedPair, TrainedResponse


@dataclass(frozen=True)
class MicroBatch:
    """B pairs. Matrices [2B, T] hold one response in each row, padded to T tokens: chosen, rejected, chosen, …"""

    pairs: tuple[TrainedPair, ...]
    row: PackedRow
    """Prompts and responses; its M predicted tokens are those of the matrices' rows, one row after the other."""
    mask: Tensor
    """[2B, T] bool, True at the response's tokens."""
    weights: Tensor
    """[2B, T] float32, 0 outside the response."""
    ref_logps: Tensor
    """[2B, T] float32, 0 outside the response."""
    lengths: Tensor
    """[2B] float32, |y| of Eq. 5."""
    pair_weights: Tensor
    """[B] float32: 1, or 0 in a filler that only keeps processes in step."""

    def responses(self, logps: Tensor) -> tuple[Response, Response]:
        """Chosen and rejected responses, given the policy's log-probs [M] of the row."""
        matrix = torch.zeros_like(self.weights).masked_scatter(self.mask, logps)
        chosen, rejected = (
            Response(
                matrix[side::2],
                self.mask[side::2],
                self.weights[side::2],
                self.lengths[side::2],
                self.ref_logps[side::2],
            )
            for side in (0, 1)
        )
        return chosen, rejected


def prompted(pair: TrainedPair) -> Prompted:
    """A pair's prompt with its chosen and its rejected response."""
    return Prompted(pair.prompt_ids, (pair.chosen.ids, pair.rejected.ids))


def split_pairs(pairs: Sequence[TrainedPair], token_budget: int, share: bool) -> list[list[TrainedPair]]:
    """Pairs in groups whose packed rows stay within the budget; a pair beyond it has a group of its own."""
    lengths = item_lengths([prompted(pair) for pair in pairs], share)
    return [[pairs[index] for index in batch] for batch in packed_batches(lengths, token_budget)]


def collate(pairs: Sequence[TrainedPair], share: bool, device: torch.device, pair_weight: float = 1.0) -> MicroBatch:
    """Pairs as tensors on a device."""
    responses = [response for pair in pairs for response in (pair.chosen, pair.rejected)]
    shape = len(responses), max(len(response.ids) for response in responses)
    mask = np.zeros(shape, np.bool_)
    weights = np.zeros(shape, np.float32)
    ref_logps = np.zeros(shape, np.float32)
    for place, response in enumerate(responses):
        own = slice(len(response.ids))
        mask[place, own] = True
        weights[place, own] = response.weights
        ref_logps[place, own] = response.ref_logps

    def on_device(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    return MicroBatch(
        pairs=tuple(pairs),
        row=pack([prompted(pair) for pair in pairs], share).to(device),
        mask=on_device(mask),
        weights=on_device(weights),
        ref_logps=on_device(ref_logps),
        lengths=on_device(np.array([response.length for response in responses], np.float32)),
        pair_weights=on_device(np.full(len(pairs), pair_weight, np.float32)),
    )


def filler(device: torch.device) -> MicroBatch:
    """The smallest micro-batch, of no weight: for a process with fewer micro-batches than another."""
    return collate([_FILLER], True, device, pair_weight=0.0)


_FILLER_RESPONSE = TrainedResponse(np.zeros(1, np.int64), np.zeros(1, np.float32), np.zeros(1, np.float32), 1.0)
_FILLER = TrainedPair("", np.zeros(1, np.int64), _FILLER_RESPONSE, _FILLER_RESPONSE)

"""Micro-batches: a few pairs in one packed row, with what the loss takes from disk."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.models.batching import packed_batches
from pipeline.models.packed.layout import PackedRow, Prompted, pack
from pipeline.models.response_logps import item_lengths
from pipeline.objectives.response import Pairs, Response
from pipeline.train.pairs import PromptedResponses, Trained, TrainedResponse


@dataclass(frozen=True)
class MicroBatch:
    """B pairs. Matrices [K B, T] hold one response in each row, padded to T tokens: chosen, rejected (and third, where
    K is 3), chosen, …; KTO's mismatched responses alone have K = 1."""

    pairs: tuple[Trained, ...]
    row: PackedRow
    """Prompts and responses; its M predicted tokens are those of the matrices' rows, one row after the other."""
    mask: Tensor
    """[K B, T] bool, True at the response's tokens."""
    weights: Tensor
    """[K B, T] float32, 0 outside the response."""
    ref_logps: Tensor | None
    """[K B, T] float32, 0 outside the response; None where the objective takes no reference."""
    lengths: Tensor
    """[K B] float32, |y| of Eq. 5."""
    pair_weights: Tensor
    """[B] float32: 1, or 0 in a filler that only keeps processes in step."""

    @property
    def sides(self) -> int:
        """K, the responses of a pair: 1 to 3."""
        return len(self.lengths) // len(self.pairs)

    def judged(self, logps: Tensor, kls: Tensor | None = None, kl_baseline: Tensor | None = None) -> Pairs:
        """What the objective sees, given the policy's log-probs [M] of the row, and KL with the reference [M]."""
        chosen, rejected, *third = self.responses(logps, kls)
        return Pairs(chosen, rejected, third[0] if third else None, kl_baseline)

    def responses(self, logps: Tensor, kls: Tensor | None = None) -> list[Response]:
        """The K responses of all pairs, each [B, T]."""
        columns = (
            self._matrix(logps),
            self.mask,
            self.weights,
            self.lengths,
            self.ref_logps,
            None if kls is None else self._matrix(kls),
        )
        return [
            Response(*(None if column is None else column[side :: self.sides] for column in columns))  # type: ignore[arg-type]
            for side in range(self.sides)
        ]

    def _matrix(self, values: Tensor) -> Tensor:
        """Values [M] of the row as [K B, T], 0 outside the responses."""
        return torch.zeros_like(self.weights).masked_scatter(self.mask, values)


def prompted(pair: Trained) -> Prompted:
    """A pair's prompt with its responses."""
    return Prompted(pair.prompt_ids, [response.ids for response in pair.responses])


def split_pairs(pairs: Sequence[Trained], token_budget: int, share: bool) -> list[list[Trained]]:
    """Pairs in groups whose packed rows stay within the budget; a pair beyond it has a group of its own."""
    lengths = item_lengths([prompted(pair) for pair in pairs], share)
    return [[pairs[index] for index in batch] for batch in packed_batches(lengths, token_budget)]


def collate(pairs: Sequence[Trained], share: bool, device: torch.device, pair_weight: float = 1.0) -> MicroBatch:
    """Pairs as tensors on a device."""
    responses = [response for pair in pairs for response in pair.responses]
    shape = len(responses), max(len(response.ids) for response in responses)
    mask = np.zeros(shape, np.bool_)
    weights = np.zeros(shape, np.float32)
    ref_logps = np.zeros(shape, np.float32)
    for place, response in enumerate(responses):
        own = slice(len(response.ids))
        mask[place, own] = True
        weights[place, own] = response.weights
        if response.ref_logps is not None:
            ref_logps[place, own] = response.ref_logps

    def on_device(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    return MicroBatch(
        pairs=tuple(pairs),
        row=pack([prompted(pair) for pair in pairs], share).to(device),
        mask=on_device(mask),
        weights=on_device(weights),
        ref_logps=None if responses[0].ref_logps is None else on_device(ref_logps),
        lengths=on_device(np.array([response.length for response in responses], np.float32)),
        pair_weights=on_device(np.full(len(pairs), pair_weight, np.float32)),
    )


def filler(sides: int, reference: bool, device: torch.device) -> MicroBatch:
    """The smallest micro-batch of so many responses a pair, of no weight: for a process with fewer than another."""
    token = np.zeros(1, np.float32)
    response = TrainedResponse(np.zeros(1, np.int64), token, token if reference else None, 1.0)
    row = PromptedResponses("", np.zeros(1, np.int64), (response,) * sides)
    return collate([row], True, device, pair_weight=0.0)

"""Prompts with their responses as one row of tokens: no padding, and a prompt once for all of its responses."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Prompted(NamedTuple):
    """A prompt of at least one token, and the responses that follow it, each of at least one."""

    prompt_ids: Sequence[int] | NDArray[np.integer]
    responses: Sequence[Sequence[int] | NDArray[np.integer]]


class Segment(NamedTuple):
    """Tokens that stand together in the row, and see each other causally and all of `prefix` before."""

    start: int
    stop: int
    prefix: tuple[int, int]
    """Where the prompt lies that an earlier segment holds; empty where the segment holds its own."""

    @property
    def keys(self) -> int:
        """Tokens that its last token sees."""
        return self.prefix[1] - self.prefix[0] + self.stop - self.start


@dataclass(frozen=True)
class PackedRow:
    """N tokens of several sequences, and the M response tokens among them that are predicted.

    The M are in the order of the prompts, of each prompt's responses, of the response's tokens.
    """

    input_ids: Tensor
    """[1, N] int64"""
    position_ids: Tensor
    """[1, N] int64: each token's position in its own sequence."""
    predictors: Tensor
    """[M] int64: the place whose hidden state predicts the token. A shared prompt's last token predicts several."""
    targets: Tensor
    """[M] int64: the token."""
    segments: tuple[Segment, ...]
    """In the order of the row, which they cover."""

    def to(self, device: torch.device) -> "PackedRow":
        """The row on a device."""
        names = ("input_ids", "position_ids", "predictors", "targets")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(segment.keys for segment in self.segments)


def row_length(prompt: int, responses: Sequence[int], share: bool) -> int:
    """Places that a prompt of so many tokens takes in a row with its responses."""
    return sum(responses) + prompt * (1 if share else len(responses))


def pack(items: Sequence[Prompted], share: bool) -> PackedRow:
    """Lay out prompts with their responses. `share`: a prompt stands once, before its first response.

    Otherwise every response has the prompt before it. Raises ValueError for an empty prompt or response.
    """
    ids: list[np.ndarray] = []
    positions: list[np.ndarray] = []
    predictors: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    segments: list[Segment] = []
    end = 0
    for item in items:
        prompt = np.asarray(item.prompt_ids, np.int64)
        begin = end
        for number, given in enumerate(item.responses):
            response = np.asarray(given, np.int64)
            if not (len(prompt) and len(response)):
                raise ValueError("a prompt and a response have at least one token each")
            repeats = number == 0 or not share
            start = end
            if repeats:
                ids.append(prompt)
                positions.append(np.arange(len(prompt)))
                end += len(prompt)
            # The prompt's last token predicts the response's first, wherever the prompt stands.
            last = end - 1 if repeats else begin + len(prompt) - 1
            predictors.append(np.concatenate([[last], np.arange(end, end + len(response) - 1)]))
            ids.append(response)
            positions.append(np.arange(len(prompt), len(prompt) + len(response)))
            targets.append(response)
            end += len(response)
            prefix = (start, start) if repeats else (begin, begin + len(prompt))
            segments.append(Segment(start, end, prefix))
    return PackedRow(
        _tensor(ids)[None], _tensor(positions)[None], _tensor(predictors), _tensor(targets), tuple(segments)
    )


def _tensor(parts: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64, copy=False))

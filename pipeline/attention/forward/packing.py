"""The tokens of several groups of prompts in one row, each shared prefix once: no padding, one forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.attention.forward.prefixes import Group


@dataclass(frozen=True)
class PackedPrompt:
    """One prompt in the packed row. Its keys are the header's, then those at `shared`, then those at [start, stop)."""

    index: int
    """Which prompt."""
    shared: tuple[int, int]
    """Where the prefix lies that an earlier prompt of its group has computed; empty for a group's first."""
    start: int
    stop: int
    """Its own positions, half-open; the query is the last of them."""


@dataclass(frozen=True)
class Packed:
    """A batch of N positions in one row."""

    input_ids: Tensor
    """int64 [1, N]."""
    position_ids: Tensor
    """int64 [1, N]: each token's position in its own prompt."""
    prompts: tuple[PackedPrompt, ...]
    """In the order of the row; together their [start, stop) cover it."""
    header: int
    """Tokens that come before every prompt and are not in the row."""

    @property
    def last(self) -> list[int]:
        """Where the query of each prompt stands in the row."""
        return [prompt.stop - 1 for prompt in self.prompts]

    def scores(self) -> int:
        """Pairs of a query and a key that it sees, over the whole row."""
        total = 0
        for prompt in self.prompts:
            own = prompt.stop - prompt.start
            before = self.header + prompt.shared[1] - prompt.shared[0]
            total += own * before + own * (own + 1) // 2
        return total


def pack(groups: Sequence[Group], prompts: Sequence[Sequence[int]]) -> Packed:
    """Lay out groups that all begin with the header, or all without it."""
    header = groups[0].header
    ids: list[int] = []
    positions: list[int] = []
    placed: list[PackedPrompt] = []
    for group in groups:
        begin = len(ids)
        for rank, index in enumerate(group.members):
            taken = header if rank == 0 else group.shared
            shared = (begin, begin + group.shared - header) if rank else (begin, begin)
            start = len(ids)
            ids.extend(prompts[index][taken:])
            positions.extend(range(taken, len(prompts[index])))
            placed.append(PackedPrompt(index, shared, start, len(ids)))
    return Packed(torch.tensor([ids]), torch.tensor([positions]), tuple(placed), header)

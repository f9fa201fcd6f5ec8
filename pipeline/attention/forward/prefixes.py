"""Which prompts begin alike, so that what they share is computed once.

A causal model's keys and values at a position depend on the tokens up to it alone. Prompts are compared token by token,
so what is found holds for any chat template: the judge header is what all prompts share, the question what the two
rounds of a pair share.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.integer]

MIN_SHARED = 8
"""Tokens beyond the header for which two prompts are put together; fewer save less than the extra bookkeeping costs."""


@dataclass(frozen=True)
class Group:
    """Prompts that follow one another and share their first `shared` tokens, the header included."""

    members: tuple[int, ...]
    """Indices of prompts."""
    shared: int
    header: int
    """Tokens of the run's header that they begin with: all of it, or none."""

    def packed_tokens(self, lengths: Sequence[int]) -> int:
        """Positions to compute: the header's are there already, the other shared ones count once."""
        return self.shared - self.header + sum(lengths[index] - self.shared for index in self.members)


def common_prefix(first: Sequence[int] | Ids, second: Sequence[int] | Ids) -> int:
    """Number of leading tokens in which two prompts agree."""
    length = min(len(first), len(second))
    differ = np.flatnonzero(np.asarray(first[:length]) != np.asarray(second[:length]))
    return int(differ[0]) if len(differ) else length


def find_groups(prompts: Sequence[Sequence[int]], header: Sequence[int] = ()) -> list[Group]:
    """Neighbours that share a prefix, in the order of `prompts`.

    Every prompt keeps at least its last token to itself: there is the query. A prompt joins the group before it only if
    that leaves the group's shared prefix as long as it is, so that the rounds of one pair never lose their question to
    the next pair.
    """
    arrays = [np.asarray(ids) for ids in prompts]
    groups: list[Group] = []
    for index, ids in enumerate(arrays):
        has_header = len(header) < len(ids) and common_prefix(ids, header) == len(header)
        begins = len(header) if has_header else 0
        if groups and groups[-1].header == begins:
            last = groups[-1]
            first = arrays[last.members[0]]
            agree = min(common_prefix(ids, first), len(ids) - 1, len(first) - 1)
            alone = len(last.members) == 1
            if agree >= begins + MIN_SHARED and (alone or agree >= last.shared):
                groups[-1] = Group((*last.members, index), agree if alone else last.shared, begins)
                continue
        groups.append(Group((index,), begins, begins))
    return groups


def group_batches(groups: Sequence[Group], lengths: Sequence[int], budget: int) -> list[list[Group]]:
    """Groups by size, put together so that the positions of a batch stay within `budget`.

    Largest first, so that a batch that does not fit the memory fails at once; those that lack the header on their own.
    A group larger than the budget makes a batch of its own; one of more than twice the budget is taken apart, and its
    prompts share the header alone.
    """
    groups = [part for group in groups for part in _apart(group, lengths, budget)]
    batches: list[list[Group]] = []
    filled = 0
    for group in sorted(groups, key=lambda each: (each.header, -each.packed_tokens(lengths), each.members)):
        tokens = group.packed_tokens(lengths)
        if not batches or batches[-1][0].header != group.header or filled + tokens > budget:
            batches.append([])
            filled = 0
        batches[-1].append(group)
        filled += tokens
    return batches


def _apart(group: Group, lengths: Sequence[int], budget: int) -> list[Group]:
    if group.packed_tokens(lengths) <= 2 * budget:
        return [group]
    return [Group((index,), group.header, group.header) for index in group.members]

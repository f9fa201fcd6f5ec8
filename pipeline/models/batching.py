"""Batches of prompts by a token budget."""

from collections.abc import Collection, Sequence


def token_batches(lengths: Sequence[int], budget: int, boundaries: Collection[int] = ()) -> list[list[int]]:
    """Indices of `lengths`, grouped so that batch size times longest length stays within `budget` tokens.

    Longest first, so that a batch that does not fit the memory fails at once; equal lengths keep their order, so the
    result depends on the arguments alone. A sequence longer than the budget makes a batch of its own. No batch holds
    lengths on both sides of a boundary b (<= b and > b).
    """
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        crosses = any(length <= boundary < longest for boundary in boundaries)
        if not batches or crosses or (len(batches[-1]) + 1) * longest > budget:
            batches.append([])
            longest = length
        batches[-1].append(index)
    return batches

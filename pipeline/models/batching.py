"""Batches by a token budget, of padded rows and of packed ones."""

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


def packed_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of `lengths`, grouped so that the sum of a batch stays within `budget` tokens.

    As few batches as first-fit decreasing finds, and those as even as can be: the largest one decides the memory. The
    result depends on the arguments alone. A length beyond the budget makes a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    tight: list[list[int]] = []
    room: list[int] = []
    for index in order:
        place = next((number for number, left in enumerate(room) if lengths[index] <= left), len(room))
        if place == len(room):
            tight.append([])
            room.append(budget)
        tight[place].append(index)
        room[place] -= lengths[index]
    even: list[list[int]] = [[] for _ in tight]
    sums = [0] * len(tight)
    for index in order:
        place = min(range(len(sums)), key=lambda number: (sums[number], number))
        even[place].append(index)
        sums[place] += lengths[index]
    fits = all(total <= budget or len(batch) == 1 for total, batch in zip(sums, even, strict=True))
    return even if fits else tight

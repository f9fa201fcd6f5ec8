"""Which training tokens equal which judge-context tokens: the alignment of the PyPI package ``edit-distance``, fast.

AttentionPO (Appendix D) matches with ``edit_distance.SequenceMatcher(a, b).get_matching_blocks()``; its released code
passes the training ids as ``a`` and the judge-context ids as ``b``. Of the many alignments of equal cost that package
settles on one by the order of its comparisons, and another one would put weights on other tokens. This module yields
that one, pair for pair, of release 1.0.7 (pinned by the released code) and of 1.0.9 alike.

The package fills a table D of distances, D(i, j) between a[:i] and b[:j], and walks back from the far corner, at each
cell (i, j) taking the first of these that explains D(i, j):
  1. a diagonal step: D(i-1, j-1), plus 1 where a[i-1] != b[j-1]   (only a free one is a match);
  2. a step in b:     D(i, j-1) + 1;
  3. a step in a:     D(i-1, j) + 1.
The walk reads nothing but differences of neighbouring cells, and those are what the bit-parallel algorithm of Myers
(1999), as written by Hyyrö (2004), computes for a whole row of D at a time, here with Python's integers as bit vectors.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

IndexArray = NDArray[np.int64]
TokenIds = Sequence[int] | NDArray[np.integer]


def matching_pairs(a: TokenIds, b: TokenIds) -> tuple[IndexArray, IndexArray]:
    """The matched positions in ``a`` [m] and ``b`` [n]: two arrays of one length, both strictly increasing.

    Equal, ties included, to the (i, j) of ``SequenceMatcher(a=a, b=b).get_matching_blocks()`` (whose blocks all have
    length 1). The arguments do not commute: ``a`` are the training ids, ``b`` the judge-context ids.

    Equal sequences and common endings cost next to nothing; the rest costs, for every token of ``a``, a dozen
    operations on integers of n bits, whatever the distance.
    """
    ids_a, ids_b = _as_list(a), _as_list(b)
    if ids_a == ids_b:
        whole = np.arange(len(ids_a), dtype=np.int64)
        return whole, whole
    ending = _common_ending(ids_a, ids_b)
    m, n = len(ids_a) - ending, len(ids_b) - ending
    matched_a, matched_b = _walk_back(ids_a[:m], ids_b[:n])
    tail = np.arange(ending, dtype=np.int64)
    return np.concatenate([matched_a, tail + m]), np.concatenate([matched_b, tail + n])


def _as_list(ids: TokenIds) -> list[int]:
    return ids.tolist() if isinstance(ids, np.ndarray) else list(ids)


def _common_ending(a: list[int], b: list[int]) -> int:
    # Between equal symbols the diagonal step always explains D(i, j): neighbours in D differ by at most 1, so neither
    # D(i, j-1) + 1 nor D(i-1, j) + 1 is below D(i-1, j-1). The walk starts at the end, hence takes a common ending
    # whole. A common beginning may not be taken off: of [1, 1] the package matches [1] to the second.
    length = 0
    for x, y in zip(reversed(a), reversed(b), strict=False):
        if x != y:
            break
        length += 1
    return length


def _walk_back(a: list[int], b: list[int]) -> tuple[IndexArray, IndexArray]:
    """The package's walk from (m, n) to (0, 0); its matches in rising order."""
    free_diagonal, dearer_than_left = _row_differences(a, b)
    matched_a: list[int] = []
    matched_b: list[int] = []
    i, j = len(a) - 1, len(b) - 1
    while i >= 0 and j >= 0:
        if a[i] == b[j]:
            matched_a.append(i)
            matched_b.append(j)
            i -= 1
            j -= 1
        elif not free_diagonal[i] >> j & 1:
            i -= 1
            j -= 1
        elif dearer_than_left[i] >> j & 1:
            j -= 1
        else:
            i -= 1
    return np.array(matched_a[::-1], dtype=np.int64), np.array(matched_b[::-1], dtype=np.int64)


def _row_differences(a: list[int], b: list[int]) -> tuple[list[int], list[int]]:
    """Differences of the distance table D [m+1, n+1], one integer a row; bit j-1 of entry i-1 speaks of cell (i, j).

    First list (D0 of Hyyrö 2004): set where D(i, j) = D(i-1, j-1), else it is one more, and a replacement explains it.
    Second list (VP): set where D(i, j) = D(i, j-1) + 1, that is, where a step in ``b`` explains it.
    """
    every_bit = (1 << len(b)) - 1
    where: dict[int, int] = {}
    for j, symbol in enumerate(b):
        where[symbol] = where.get(symbol, 0) | 1 << j
    free_diagonal: list[int] = []
    dearer_than_left: list[int] = []
    plus, minus = every_bit, 0
    for symbol in a:
        equal = where.get(symbol, 0)
        free = (((equal & plus) + plus) ^ plus) | equal | minus
        # The 1 shifted in is the first column, D(i, 0) = D(i-1, 0) + 1.
        up_plus = (minus | every_bit & ~(free | plus)) << 1 | 1
        up_minus = (free & plus) << 1
        plus = (up_minus | ~(free | up_plus)) & every_bit
        minus = up_plus & free & every_bit
        free_diagonal.append(free)
        dearer_than_left.append(plus)
    return free_diagonal, dearer_than_left

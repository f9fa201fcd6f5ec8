"""Cutting at whole characters: limits hold, nothing more than needed goes."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.judge.spans import as_offsets
from pipeline.judge.truncate import Kept, first_tokens, last_tokens

# "ab", an emoji of three byte tokens, a dropped space, "cd", dropped trailing white space.
OFFSETS = as_offsets([(0, 2), (2, 3), (2, 3), (2, 3), (4, 6)])
LENGTH = 8


def test_a_text_within_the_limit_is_kept_whole() -> None:
    assert first_tokens(OFFSETS, LENGTH, 5) == last_tokens(OFFSETS, LENGTH, 5) == Kept((0, LENGTH), 5, 0)


def test_the_first_tokens_end_with_a_whole_character() -> None:
    assert first_tokens(OFFSETS, LENGTH, 4) == Kept((0, 3), 4, 1)
    assert first_tokens(OFFSETS, LENGTH, 3) == first_tokens(OFFSETS, LENGTH, 1) == Kept((0, 2), 1, 4)
    assert first_tokens(OFFSETS, LENGTH, 0) == Kept((0, 0), 0, 5)


def test_the_last_tokens_begin_with_a_whole_character() -> None:
    assert last_tokens(OFFSETS, LENGTH, 4) == Kept((2, LENGTH), 4, 1)
    assert last_tokens(OFFSETS, LENGTH, 3) == Kept((3, LENGTH), 1, 4)
    assert last_tokens(OFFSETS, LENGTH, 1) == Kept((4, LENGTH), 1, 4)
    assert last_tokens(OFFSETS, LENGTH, 0) == Kept((LENGTH, LENGTH), 0, 5)


@given(widths=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1), limit=st.integers(0, 40))
def test_one_more_token_would_not_fit_or_split_a_character(widths: list[tuple[int, int]], limit: int) -> None:
    """`widths`: characters and tokens of each piece; pieces of several tokens share one character."""
    offsets, at = [], 0
    for characters, tokens in widths:
        width = 1 if tokens > 1 else characters
        offsets += [(at, at + width)] * tokens
        at += width
    array = as_offsets(offsets)
    first, last = first_tokens(array, at, limit), last_tokens(array, at, limit)
    for kept, boundaries in ((first, {b for _, b in offsets} | {0}), (last, {a for a, _ in offsets} | {at})):
        start, end = kept.characters
        inside = [a for a in offsets if start <= a[0] and a[1] <= end]
        assert len(inside) == kept.tokens <= max(limit, 0) or len(offsets) <= limit
        assert kept.tokens + kept.cut == len(offsets)
        wider = [x for x in boundaries if (x > end if kept is first and start == 0 else x < start)]
        for edge in wider:
            reach = (0, edge) if kept is first else (edge, at)
            assert sum(reach[0] <= a and b <= reach[1] for a, b in offsets) > limit

"""Spans by characters, against a loop over every character."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.judge.spans import as_offsets, response_offsets, token_span


@st.composite
def ordered_offsets(draw: st.DrawFn) -> tuple[list[tuple[int, int]], int]:
    """Offsets as tokenizers give them: in order, with gaps, shared characters and tokens of no character."""
    offsets, at = [], 0
    for _ in range(draw(st.integers(0, 12))):
        at += draw(st.integers(0, 2))
        end = at + draw(st.integers(0, 3))
        offsets += [(at, end)] * draw(st.integers(1, 3))
        at = end
    return offsets, at + draw(st.integers(0, 2))


@given(made=ordered_offsets(), data=st.data())
def test_span_and_offsets_cover_what_the_tokens_cover(
    made: tuple[list[tuple[int, int]], int], data: st.DataObject
) -> None:
    offsets, length = made
    start = data.draw(st.integers(0, length))
    end = data.draw(st.integers(start, length))
    array = as_offsets(offsets)
    first, last = token_span(array, (start, end))
    wanted = [i for i, (a, b) in enumerate(offsets) if set(range(a, b)) & set(range(start, end))]
    assert (first, last) == ((wanted[0], wanted[-1] + 1) if wanted else (0, 0))
    inner = response_offsets(array, (first, last), (start, end))
    assert len(inner) == last - first
    for (a, b), (x, y) in zip(offsets[first:last], inner.tolist(), strict=True):
        assert 0 <= x <= y <= end - start
        assert [i - start for i in range(a, b) if start <= i < end] == list(range(x, y))

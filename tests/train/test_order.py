"""The order of an epoch: every pair once, a pure function of its arguments, windows of few shards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.train.order import Order, Row, shuffled_order, stored_order

ROWS = st.lists(st.integers(0, 7), min_size=1, max_size=12)


def walk(order: Order) -> list[Row]:
    return [row for window in range(len(order.windows)) for row in order.rows_of(window)]


EXPECTED = [(1, 0), (0, 0), (0, 1), (1, 1), (0, 2), (2, 2), (2, 0), (2, 1), (2, 3)]


@given(st.integers(-3, 2**40), st.integers(0, 5), ROWS, st.integers(1, 4))
def test_every_pair_comes_once(seed: int, epoch: int, shard_rows: list[int], window: int) -> None:
    order = shuffled_order(seed, epoch, shard_rows, window)
    everything = [Row(shard, row) for shard, rows in enumerate(shard_rows) for row in range(rows)]
    assert sorted(walk(order), key=lambda row: (row.shard, row.row)) == everything
    assert len(order) == len(everything)
    assert all(len(shards) <= window for shards in order.windows)


@given(ROWS, st.integers(1, 4))
def test_a_position_finds_its_window(shard_rows: list[int], window: int) -> None:
    order = shuffled_order(0, 0, shard_rows, window)
    rows = walk(order)
    for position in range(len(order)):
        found = order.window_at(position)
        first, last = order.range_of(found)
        assert first <= position < last
        assert order.rows_of(found)[position - first] == rows[position]
    with pytest.raises(IndexError):
        order.window_at(len(order))


def test_seed_and_epoch_change_the_order_and_nothing_else_does() -> None:
    shard_rows = [5] * 20
    assert walk(shuffled_order(1, 0, shard_rows)) == walk(shuffled_order(1, 0, shard_rows))
    assert walk(shuffled_order(1, 0, shard_rows)) != walk(shuffled_order(1, 1, shard_rows))
    assert walk(shuffled_order(1, 0, shard_rows)) != walk(shuffled_order(2, 0, shard_rows))


def test_the_order_is_the_same_on_every_machine_and_release() -> None:
    # Checkpoints name positions in this order; a change of it must be a decision.
    assert [(row.shard, row.row) for row in walk(shuffled_order(42, 1, [3, 2, 4], 2))] == EXPECTED


def test_rows_of_several_shards_are_mixed_within_a_window() -> None:
    [first, *_] = shuffled_order(0, 0, [50] * 16, window_shards=8).windows
    shards = [row.shard for row in shuffled_order(0, 0, [50] * 16, window_shards=8).rows_of(0)]
    assert set(shards[:100]) == set(first)


def test_evaluation_reads_in_stored_order() -> None:
    assert walk(stored_order([2, 0, 1])) == [Row(0, 0), Row(0, 1), Row(2, 0)]

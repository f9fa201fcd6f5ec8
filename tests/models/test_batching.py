"""Batches by a token budget."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.models.batching import packed_batches, token_batches

LENGTHS = st.lists(st.integers(1, 60), max_size=40)


@given(LENGTHS, st.integers(1, 200), st.sets(st.integers(1, 60), max_size=2))
def test_every_prompt_once_within_budget_on_one_side_of_each_boundary(lengths, budget, boundaries):
    batches = token_batches(lengths, budget, boundaries)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
        for boundary in boundaries:
            assert len({lengths[index] > boundary for index in batch}) == 1


def test_longest_first_and_stable():
    assert token_batches([3, 9, 3, 9, 5], budget=18) == [[1, 3], [4, 0, 2]]


def test_longer_than_the_budget_runs_alone():
    assert token_batches([5, 50, 5], budget=10) == [[1], [0, 2]]


def test_nothing_to_do():
    assert token_batches([], budget=10) == []


@given(LENGTHS, st.integers(1, 200))
def test_packed_every_item_once_within_budget_in_few_batches(lengths, budget):
    batches = packed_batches(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    sums = [sum(lengths[index] for index in batch) for batch in batches]
    assert all(total <= budget or len(batch) == 1 for total, batch in zip(sums, batches, strict=True))
    # First-fit decreasing never leaves two batches that would go into one.
    if all(length <= budget for length in lengths) and len(sums) > 1:
        assert len(sums) <= 2 * sum(lengths) / budget + 1


def test_packed_batches_are_even():
    batches = packed_batches([10, 9, 2, 1], budget=20)
    assert sorted(sum([10, 9, 2, 1][index] for index in batch) for batch in batches) == [11, 11]
    assert packed_batches([3, 3, 2, 2, 2], budget=6) == [[0, 1], [2, 3, 4]]  # evened out, one would not fit
    assert packed_batches([50, 1], budget=10) == [[0], [1]]
    assert packed_batches([], budget=10) == []

"""Batches by a token budget."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.models.batching import token_batches

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

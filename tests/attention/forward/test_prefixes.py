"""Which prompts share what, on token ids alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.attention.forward.packing import pack
from pipeline.attention.forward.prefixes import MIN_SHARED, Group, common_prefix, find_groups, group_batches

HEADER = list(range(100, 110))


def judge(question, rounds, header=HEADER):
    """Prompts of one pair: the header, a question of 20 tokens of its own, two rounds."""
    shared = [*header, *range(1000 * question, 1000 * question + 20)]
    return [[*shared, *tail] for tail in rounds]


@given(st.lists(st.integers(0, 2), max_size=8), st.lists(st.integers(0, 2), max_size=8))
def test_common_prefix_is_where_they_first_differ(first, second):
    expected = 0
    while expected < min(len(first), len(second)) and first[expected] == second[expected]:
        expected += 1
    assert common_prefix(first, second) == expected
    assert common_prefix(np.array(first), np.array(second)) == expected


def test_rounds_share_their_question_and_pairs_do_not_mix():
    prompts = [*judge(1, ([7, 8], [9, 8, 7])), *judge(2, ([7], [9]))]
    assert find_groups(prompts, HEADER) == [Group((0, 1), 30, 10), Group((2, 3), 30, 10)]


def test_without_a_header_the_rounds_still_share_all_they_have():
    prompts = [*judge(1, ([7], [9])), *judge(2, ([7], [9]))]
    assert find_groups(prompts) == [Group((0, 1), 30, 0), Group((2, 3), 30, 0)]


def test_pairs_on_one_question_make_one_group():
    prompts = [*judge(1, ([7], [9])), *judge(1, ([5], [6]))]
    assert find_groups(prompts, HEADER) == [Group((0, 1, 2, 3), 30, 10)]


def test_a_prompt_without_the_header_stands_apart():
    other = judge(1, ([7], [9]), header=[50] * 10)
    groups = find_groups([*judge(1, ([7], [9])), *other], HEADER)
    assert groups == [Group((0, 1), 30, 10), Group((2, 3), 30, 0)]
    batches = group_batches(groups, [31] * 4, 1000)
    assert [[group.members for group in batch] for batch in batches] == [[(2, 3)], [(0, 1)]]


def test_the_last_token_is_never_shared():
    same = judge(1, ([7], [7]))
    assert find_groups(same, HEADER) == [Group((0, 1), 30, 10)]
    assert find_groups([HEADER, HEADER], HEADER) == [Group((0, 1), 9, 0)]


def test_a_few_common_tokens_are_not_worth_a_group():
    first, second = [*HEADER, *range(MIN_SHARED - 1), 50, 51], [*HEADER, *range(MIN_SHARED - 1), 60, 61]
    assert [group.members for group in find_groups([first, second], HEADER)] == [(0,), (1,)]


def test_batches_stay_within_the_budget_and_hold_every_prompt_once():
    prompts = [ids for question in range(1, 9) for ids in judge(question, ([7] * question, [9] * (3 * question)))]
    lengths = [len(ids) for ids in prompts]
    for budget in (30, 60, 100, 10_000):
        batches = group_batches(find_groups(prompts, HEADER), lengths, budget)
        for batch in batches:
            assert len(batch) == 1 or sum(group.packed_tokens(lengths) for group in batch) <= budget
        members = [index for batch in batches for group in batch for index in group.members]
        assert sorted(members) == list(range(len(prompts)))
        sizes = [batch[0].packed_tokens(lengths) for batch in batches]
        assert sizes == sorted(sizes, reverse=True)


def test_a_group_of_more_than_twice_the_budget_is_taken_apart():
    prompts = judge(1, ([7] * 50, [9] * 50))
    (whole,) = group_batches(find_groups(prompts, HEADER), [80, 80], 60)
    assert whole == [Group((0, 1), 30, 10)]
    apart = group_batches(find_groups(prompts, HEADER), [80, 80], 59)
    assert apart == [[Group((0,), 10, 10)], [Group((1,), 10, 10)]]


@pytest.mark.parametrize("header", [HEADER, []])
def test_packed_prompts_can_be_read_back(header):
    """Header, shared part and own part of every prompt are its tokens, at their own positions."""
    prompts = [*judge(1, ([7, 8], [9, 8, 7])), *judge(2, ([7], [9])), judge(3, ([4, 4],))[0]]
    packed = pack(find_groups(prompts, header), prompts)
    ids, positions = packed.input_ids[0].tolist(), packed.position_ids[0].tolist()
    assert len(ids) < sum(len(each) for each in prompts)
    covered = []
    for prompt in packed.prompts:
        own, shared = slice(prompt.start, prompt.stop), slice(*prompt.shared)
        assert [*header, *ids[shared], *ids[own]] == prompts[prompt.index]
        assert [*range(len(header)), *positions[shared], *positions[own]] == list(range(len(prompts[prompt.index])))
        covered += range(prompt.start, prompt.stop)
    assert covered == list(range(len(ids)))
    assert packed.last == [prompt.stop - 1 for prompt in packed.prompts]


def test_scores_count_every_visible_key_once():
    prompts = [*judge(1, ([7, 8], [9, 8, 7])), *judge(2, ([7], [9]))]
    packed = pack(find_groups(prompts, HEADER), prompts)
    keys = [position + 1 for position in packed.position_ids[0].tolist()]
    assert packed.scores() == sum(keys)

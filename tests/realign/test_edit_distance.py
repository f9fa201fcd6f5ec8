"""matching_pairs against the package `edit-distance`, pair for pair."""

import json
import random
import time

import numpy as np
import pytest
from edit_distance import SequenceMatcher
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.realign.edit_distance import matching_pairs

EDITS = ("first", "last", "both ends", "middle", "split first", "merge last", "cut", "end of turn", "shifted")


def package_pairs(a, b):
    return [(i, j) for i, j, _ in SequenceMatcher(a=a, b=b).get_matching_blocks()]


def our_pairs(a, b):
    rows, columns = matching_pairs(a, b)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def random_pair(generator):
    """Two sequences of 0 to 40 symbols out of 2 to 5: independent, or one an edited copy of the other."""
    symbols = generator.randint(2, 5)
    a = [generator.randrange(symbols) for _ in range(generator.randint(0, 40))]
    if generator.random() < 0.5:
        return a, [generator.randrange(symbols) for _ in range(generator.randint(0, 40))]
    b = list(a)
    for _ in range(generator.randint(0, 6)):
        where = generator.randint(0, len(b))
        b[where : where + generator.randint(0, 2)] = [generator.randrange(symbols)] * generator.randint(0, 2)
    return a, b


def edited(ids, kind):
    """(training ids, judge ids): what a change of context does to the tokens of one response."""
    new = 49_000
    return {
        "first": (ids, [new, *ids[1:]]),
        "last": (ids, [*ids[:-1], new]),
        "both ends": ([*ids[:-2], new, new + 1], [new + 2, *ids[1:-1], new + 3]),
        "middle": (ids, [*ids[: len(ids) // 2], new, *ids[len(ids) // 2 + 1 :]]),
        "split first": ([new, new + 1, *ids[1:]], ids),
        "merge last": ([*ids[:-2], new], ids),
        "cut": (ids, ids[: len(ids) * 2 // 3]),
        "end of turn": ([*ids, new], ids[:-1]),
        "shifted": (ids, [*ids[3:], *ids[:3]]),
    }[kind]


@pytest.fixture(scope="module")
def responses(shared_data):
    with (shared_data / "test.jsonl").open(encoding="utf-8", newline="\n") as lines:
        rows = [json.loads(line) for line in lines]
    texts = [row[side][-1]["content"].strip() for row in rows for side in ("chosen", "rejected")]
    return [text for text in texts if text]


@pytest.fixture(scope="module")
def alone(responses, default_tokenizer):
    return encode(default_tokenizer, responses)


def encode(tokenizer, texts):
    return tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def in_context(tokenizer, texts, before, after):
    """Ids of the tokens that cover at least one character of the text, tokenized between `before` and `after`."""
    encoded = tokenizer(
        [before + text + after for text in texts],
        add_special_tokens=False,
        split_special_tokens=True,
        return_offsets_mapping=True,
    )
    first = len(before)
    return [
        [i for i, (start, end) in zip(ids, offsets, strict=True) if end > first and start < first + len(text)]
        for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]


def test_equals_the_package_on_1000_random_pairs():
    generator = random.Random(20)
    for _ in range(1000):
        a, b = random_pair(generator)
        assert our_pairs(a, b) == package_pairs(a, b), (a, b)


@settings(deadline=None)
@given(a=st.lists(st.integers(0, 3), max_size=25), b=st.lists(st.integers(0, 3), max_size=25))
def test_equals_the_package_on_any_pair(a, b):
    assert our_pairs(a, b) == package_pairs(a, b)


@settings(deadline=None)
@given(
    a=st.lists(st.integers(0, 2), max_size=12),
    b=st.lists(st.integers(0, 2), max_size=12),
    ending=st.lists(st.integers(0, 2), max_size=6),
)
def test_a_common_ending_is_matched_whole_and_changes_nothing_before_it(a, b, ending):
    with_ending = our_pairs(a + ending, b + ending)
    assert with_ending == our_pairs(a, b) + [(len(a) + k, len(b) + k) for k in range(len(ending))]


def test_a_common_beginning_does_change_the_choice():
    assert package_pairs([1, 1], [1]) == our_pairs([1, 1], [1]) == [(1, 0)]


def test_the_arguments_do_not_commute():
    a, b = [0, 1, 0], [1, 0, 1]
    assert our_pairs(a, b) == package_pairs(a, b) == [(1, 0), (2, 1)]
    assert our_pairs(b, a) == package_pairs(b, a) == [(1, 0), (2, 1)]


@pytest.mark.parametrize(("a", "b"), [([], []), ([], [1]), ([1], []), ([7], [7]), ([7], [8])])
def test_shortest_sequences(a, b):
    assert our_pairs(a, b) == package_pairs(a, b)


def test_takes_arrow_backed_arrays_and_returns_indices():
    ids = np.array([5, 6, 7, 8], dtype=np.int32)
    rows, columns = matching_pairs(ids, ids[1:])
    assert rows.dtype == columns.dtype == np.int64
    assert (rows.tolist(), columns.tolist()) == ([1, 2, 3], [0, 1, 2])


@pytest.mark.parametrize("kind", EDITS)
def test_equals_the_package_on_edited_real_responses(alone, kind):
    some = [ids for ids in alone if 4 <= len(ids) <= 150][:12]
    assert len(some) == 12
    for ids in some:
        a, b = edited(ids, kind)
        assert our_pairs(a, b) == package_pairs(a, b)


@pytest.mark.parametrize(
    ("before", "after"),
    [("<|The Start of Answer A|>\n", "\n<|The End of Answer A|>"), ("The answer is ", '".')],
    ids=["judge prompt", "merging edges"],
)
def test_equals_the_package_on_real_responses_in_two_contexts(responses, alone, default_tokenizer, before, after):
    judge = in_context(default_tokenizer, responses, before, after)
    pairs = [(a, b) for a, b in zip(alone, judge, strict=True) if len(a) <= 300]
    assert len(pairs) > 250
    for a, b in pairs:
        assert our_pairs(a, b) == package_pairs(a, b)


def test_120000_real_responses_take_under_a_minute(alone):
    """0.5 ms a response on average; the bound is three times that, for a busy machine."""
    pairs = [edited(ids, kind) for ids in alone if len(ids) > 4 for kind in ("both ends", "end of turn")]
    seconds = min(_seconds(pairs) for _ in range(3))
    assert 1000 * seconds / len(pairs) < 1.5


def test_long_sequences_with_nothing_in_common_are_bearable():
    assert min(_seconds([(list(range(1000)), list(range(1000, 2000)))]) for _ in range(3)) < 0.1


def _seconds(pairs):
    start = time.perf_counter()
    for a, b in pairs:
        matching_pairs(a, b)
    return time.perf_counter() - start

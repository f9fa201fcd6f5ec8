"""Parts to characters to tokens, against answers worked out by hand and against real tokenizers."""

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from pipeline.models.chat import Chat
from pipeline.weights.sources.verbalized.match import Matched, match_parts
from pipeline.weights.sources.verbalized.parse import Part
from tests.models import tiny


def by_word(text: str) -> np.ndarray:
    """Tokens as most tokenizers have them: a word with the white space before it; and an end of turn."""
    spans, begin = [], 0
    for place in range(1, len(text) + 1):
        if place == len(text) or (text[place].isspace() and not text[place - 1].isspace()):
            spans.append((begin, place))
            begin = place
    return np.array([*spans, (len(text), len(text))], dtype=np.int32)


def matched(text: str, *parts: tuple[str, int], share: float = 0.9, offsets: np.ndarray | None = None) -> Matched:
    return match_parts(text, by_word(text) if offsets is None else offsets, [Part(*part) for part in parts], share)


def scores(text: str, *parts: tuple[str, int], share: float = 0.9) -> list[float]:
    found = matched(text, *parts, share=share)
    assert found.scores.dtype == np.float32
    return found.scores.tolist()


def test_a_partition_with_its_white_space() -> None:
    found = matched("The answer is 42.", ("The answer ", 2), ("is", 1), (" 42.", 5))
    assert found.scores.tolist() == [2, 2, 1, 5, 0]
    assert (found.tokens, found.countable, found.missing) == (4, 4, 0)
    assert found.reaches(1.0)


def test_lost_and_doubled_white_space_costs_nothing() -> None:
    text = "  The answer\r\n\r\nis   42.\n"
    for parts in (
        [("The", 1), ("answer", 2), ("is", 3), ("42.", 5)],
        [("The ", 1), (" answer\n\n", 2), ("\n\nis ", 3), (" 42.\n\n\n", 5)],
        [("\u00a0The", 1), ("answ\ner", 2), (" \t", 4), ("is", 3), ("42 .", 5)],
    ):
        found = matched(text, *parts)
        assert found.scores.tolist() == [1, 2, 3, 5, 5, 0]
        assert found.tokens == found.countable
        assert found.missing == 0


def test_a_token_of_white_space_goes_with_what_follows_and_at_the_end_with_what_came() -> None:
    text = "\n\na\n\nb\n\n"
    offsets = np.array([(0, 2), (2, 3), (3, 5), (5, 6), (6, 8)])
    assert matched(text, ("a", 1), ("b", 4), offsets=offsets).scores.tolist() == [1, 1, 4, 4, 4]


def test_white_space_after_a_word_does_not_decide_a_token() -> None:
    """ "." and two line ends are one token in Llama 3: the line ends would outvote the point."""
    text = "Yes.\n\nNo"
    offsets = np.array([(0, 3), (3, 6), (6, 8)])
    assert matched(text, ("Yes.", 5), ("No", 1), offsets=offsets).scores.tolist() == [5, 5, 1]


def test_most_characters_win_and_the_first_part_on_a_tie() -> None:
    offsets = np.array([(0, 3), (3, 5), (5, 8)])
    assert matched("abcdefgh", ("ab", 1), ("cd", 2), ("ef", 3), ("gh", 4), offsets=offsets).scores.tolist() == [1, 2, 4]
    assert matched("abcd", ("ab", 1), ("cd", 2), offsets=np.array([(0, 4)])).scores.tolist() == [1]
    # Pieces of one part count together only where they are one part: two parts of the same score are two.
    assert matched("abcd", ("a", 1), ("b", 1), ("cd", 2), offsets=np.array([(0, 4)])).scores.tolist() == [2]


def test_a_part_covers_a_token_with_a_single_character() -> None:
    found = matched("aXXXXX b", ("a", 3), ("b", 4), share=0.0)
    assert found.scores.tolist() == [3, 4, 0]
    assert found.tokens == 2


def test_repeated_parts_follow_each_other() -> None:
    assert scores("no no no yes no", ("no", 1), ("no", 2), ("no", 3), ("yes", 4), ("no", 5)) == [1, 2, 3, 4, 5, 0]
    # Left out once: the ones that are there are the first ones.
    assert scores("no no no yes", ("no", 1), ("no", 2), ("yes", 4), share=0.5) == [1, 2, 0, 4, 0]


def test_overlapping_parts_do_not_share_characters() -> None:
    found = matched("t1 t2 t3", ("t1 t2", 1), ("t2 t3", 5), share=0.5)
    assert found.scores.tolist() == [1, 1, 0, 0]
    assert (found.tokens, found.countable, found.missing) == (2, 3, 1)


def test_what_is_left_out_has_no_score() -> None:
    text = "one two three four five six seven eight nine ten"
    parts = [(word, 3) for word in text.split() if word != "four"]
    found = matched(text, *parts)
    assert found.scores.tolist() == [3, 3, 3, 0, 3, 3, 3, 3, 3, 3, 0]
    assert str(found) == "9 of 10 tokens matched, 0 parts not found"
    assert found.reaches(0.9)
    assert not found.reaches(0.91)


def test_a_changed_word_is_missing_and_the_next_ones_are_found() -> None:
    text = "one two three four five six seven eight nine ten"
    found = matched(text, *((word if word != "four" else "FOUR", 3) for word in text.split()))
    assert found.scores.tolist() == [3, 3, 3, 0, 3, 3, 3, 3, 3, 3, 0]
    assert found.missing == 1


def test_an_invented_word_does_not_leap_over_the_rest() -> None:
    """ "ten" stands at the end too: taken there, everything between would be lost."""
    text = "one two three four five six seven eight nine ten"
    words = text.split()
    found = matched(text, *((word, 3) for word in ["one", "ten", *words[1:]]))
    assert found.scores.tolist() == [3] * 10 + [0]
    assert found.missing == 1
    leaping = matched(text, *((word, 3) for word in ["one", "ten", *words[1:]]), share=0.0)
    assert leaping.tokens == 2


def test_a_part_is_never_looked_for_behind() -> None:
    assert scores("a b", ("b", 5), ("a", 1), share=0.0) == [0, 5, 0]


@pytest.mark.parametrize(("tokens", "countable"), [(9, 10), (63, 70), (99, 110), (27, 30), (900, 1000)])
def test_exactly_the_share_is_enough(tokens: int, countable: int) -> None:
    zeros = np.zeros(countable, np.float32)
    assert Matched(zeros, tokens, countable, 0).reaches(0.9)
    assert not Matched(zeros, tokens - 1, countable, 0).reaches(0.9)


def test_nothing_to_match_is_never_enough() -> None:
    assert not matched("ab", ("ab", 1), share=0.0, offsets=np.array([(2, 2)])).reaches(0.0)
    assert not matched("", ("ab", 1), share=0.0, offsets=np.zeros((0, 2), int)).reaches(0.0)
    assert matched(" \n ", (" ", 4), offsets=np.array([(0, 3)])).scores.tolist() == [0]


def test_characters_are_taken_as_they_are() -> None:
    for text, part in (("Cafe\u0301", "Café"), ("it's", "it’s"), ("Yes", "yes"), ("ﬁ", "fi")):
        assert scores(text, (part, 5)) == [0, 0]
    assert scores("Café ﬁ 🙂", ("Café", 5), ("ﬁ 🙂", 2)) == [5, 2, 2, 0]


def test_tokens_of_one_character_in_bytes_all_get_its_score(default_tokenizer: PreTrainedTokenizerFast) -> None:
    text = "Yes 🧑‍🚀 你好 café!"
    ids, spans = Chat(default_tokenizer).text_ids(text)
    offsets = np.array(spans)
    found = matched(text, ("Yes", 1), ("🧑‍🚀", 4), ("你好", 2), ("café", 3), ("!", 5), offsets=offsets)
    assert found.tokens == len(ids)
    by_character = {character: score for part, score in
                    (("Yes", 1), ("🧑‍🚀", 4), ("你好", 2), ("café", 3), ("!", 5)) for character in part}  # fmt: skip
    split = 0
    for (start, end), score in zip(spans, found.scores.tolist(), strict=True):
        if token := text[start:end].strip():
            assert {by_character[character] for character in token} == {score}
        split += spans.count((start, end)) > 1
    assert split >= 4, "no emoji was split over several tokens"


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_partition_of_any_text_matches_wholly(data: st.DataObject) -> None:
    """Whatever the tokenizer; the reference walks over characters, white space that belongs to no one passed over."""
    name = data.draw(st.sampled_from(sorted(tiny.TOKENIZERS)))
    tokenizer = TOKENIZERS.setdefault(name, tiny.TOKENIZERS[name]())
    text = data.draw(st.text(st.sampled_from("ab c\n\r\u00a0é🙂你.</s>"), min_size=1, max_size=40))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12)) | {0, len(text)})
    pieces = [text[a:b] for a, b in pairwise(cuts)]
    parts = [Part(piece, data.draw(st.integers(1, 5))) for piece in pieces if piece]
    offsets = np.array(Chat(tokenizer, tiny.ZEPHYR).text_ids(text).offsets).reshape(-1, 2)
    found = match_parts(text, offsets, parts, 1.0)
    assert found.missing == 0
    if not text.strip():
        assert found.tokens == 0
        return
    assert found.tokens == found.countable == sum(a < b for a, b in offsets.tolist())
    of = [number for number, part in enumerate(parts) for _ in part.text]
    for (start, end), score in zip(offsets.tolist(), found.scores.tolist(), strict=True):
        seen = [of[place] for place in range(start, end) if not text[place].isspace()]
        if seen:
            assert score == parts[max(seen, key=seen.count)].score


TOKENIZERS: dict[str, PreTrainedTokenizerFast] = {}


@pytest.mark.parametrize("share", [0.9, 0.0])
@pytest.mark.parametrize("part", ["b", "aab", "a" * 40 + "b"])
def test_hostile_parts_take_no_time(part: str, share: float) -> None:
    text = "a" * 20_000
    offsets = np.array([(place, place + 4) for place in range(0, len(text), 4)])
    began = time.perf_counter()
    found = match_parts(text, offsets, [Part(part, 1)] * (100_000 // (len(part) + 8)), share)
    assert time.perf_counter() - began < 3
    assert found.tokens == 0

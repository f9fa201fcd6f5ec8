"""Answers as judges write them: the prompt's spelling, JSON's, and everything that must be refused."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.weights.sources.verbalized.parse import REASONS, AnswerRefused, Part, parse_parts

TWO = [Part("The answer", 2), Part(" is 42.", 5)]


@pytest.mark.parametrize(
    "answer",
    [
        '[{"The answer", 2}, {" is 42.", 5}]',
        '[["The answer", 2], [" is 42.", 5]]',
        '[{"The answer": 2}, {" is 42.": 5}]',
        '[{"The answer", 2}, [" is 42.", 5]]',
        '\n\t [ {\r\n"The answer" , 2 }\n,{ " is 42.",5}\n]\n ',
        '```json\n[{"The answer", 2}, {" is 42.", 5}]\n```',
        '```\r\n[["The answer", 2], [" is 42.", 5]]```  \n',
    ],
    ids=["the prompt's", "lists", "objects", "mixed", "white space", "fence", "fence, CRLF"],
)
def test_the_spellings_that_are_read(answer: str) -> None:
    assert parse_parts(answer) == TWO


PARTS = st.lists(st.tuples(st.text(min_size=1), st.integers(1, 5)), min_size=1)


@given(PARTS, st.booleans(), st.sampled_from(['[{"%s, %d}]', '[["%s, %d]]', '[{"%s: %d}]']))
def test_any_text_comes_back(parts: list[tuple[str, int]], ascii_only: bool, spelling: str) -> None:
    """Written by json, whose own reader is the reference for the lists."""
    item = spelling[1:-1].replace('"%s', "%s")
    written = ", ".join(item % (json.dumps(text, ensure_ascii=ascii_only), score) for text, score in parts)
    assert parse_parts(f"[{written}]") == parts
    if spelling.startswith("[["):
        assert [tuple(pair) for pair in json.loads(f"[{written}]")] == parts


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (r'[{"\ud83d\ude42 \u00e9", 1}]', "🙂 é"),
        ('[{"🙂👩‍👧 你好", 1}]', "🙂👩‍👧 你好"),
        (r'[{"a\r\nb\t\\\"\/", 1}]', 'a\r\nb\t\\"/'),
        (r'[{"\ud83d", 1}]', "\ud83d"),
        ('[{"]}, {", 1}]', "]}, {"),
        ('[{"\u2028\x7f", 1}]', "\u2028\x7f"),
        ('[{" ", 1}]', " "),
    ],
)
def test_strings_are_json_strings(answer: str, text: str) -> None:
    assert parse_parts(answer) == [Part(text, 1)]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "no_list"),
        (" \n", "no_list"),
        ("I cannot split this response.", "no_list"),
        ('{"a", 1}', "no_list"),
        ("```json\n```", "no_list"),
        ('Here is the list: [{"a", 1}]', "text_around_list"),
        ('[{"a", 1}] I hope this helps!', "text_around_list"),
        ('[{"a", 1}][{"b", 1}]', "text_around_list"),
        ('[{"a", 1}]```', "text_around_list"),
        ('```json\n[{"a", 1}]', "text_around_list"),
        ('```json\n[{"a", 1}]\n``` done', "text_around_list"),
        ('```\n```\n[{"a", 1}]\n```\n```', "text_around_list"),
        ('\u00a0[{"a", 1}]', "text_around_list"),
        ('\ufeff[{"a", 1}]', "text_around_list"),
        ("[", "unfinished_list"),
        ('[{"a", 1}, {"b', "unfinished_list"),
        ('[{"a", 1}, {"b\\', "unfinished_list"),
        ('[{"a", 1}, {"b\\u00', "unfinished_list"),
        ('[{"a", 1}, {"b"', "unfinished_list"),
        ('[{"a", 1}, {"b", ', "unfinished_list"),
        ('[{"a", 1', "unfinished_list"),
        ('[{"a", 12', "unfinished_list"),
        ('[{"a", 1}', "unfinished_list"),
        ('[{"a", 1}, ', "unfinished_list"),
        ('```json\n[{"a", 1},\n', "unfinished_list"),
        ("[]", "empty_list"),
        ("[ \n ]", "empty_list"),
        ("[1, 2]", "not_a_list_of_pairs"),
        ('["a", 1]', "not_a_list_of_pairs"),
        ('[("a", 1)]', "not_a_list_of_pairs"),
        ('[{"a", 1},]', "not_a_list_of_pairs"),
        ('[{"a", 1} {"b", 1}]', "not_a_list_of_pairs"),
        ('[{"a", 1]]', "not_a_list_of_pairs"),
        ('[["a": 1]]', "not_a_list_of_pairs"),
        ('[["a", 1}]', "not_a_list_of_pairs"),
        ('[{"a": 1, "b": 2}]', "not_a_list_of_pairs"),
        ('[{"text": "a", "score": 1}]', "score_not_an_integer"),
        ('[{"a"}]', "not_a_list_of_pairs"),
        ("[{'a', 1}]", "not_a_list_of_pairs"),
        ("[{a, 1}]", "not_a_list_of_pairs"),
        ("[[]]", "not_a_list_of_pairs"),
        ("[[[[", "not_a_list_of_pairs"),
        ('[{"a", 1}, ...]', "not_a_list_of_pairs"),
        ('[{"a", __import__("os")}]', "score_not_an_integer"),
        ('[{"a\nb", 1}]', "bad_string"),
        ('[{"a\\x", 1}]', "bad_string"),
        ('[{"a\\u00g0", 1}]', "bad_string"),
        ('[{"a\x00", 1}]', "bad_string"),
        ('[{"a", 1}, {"", 2}]', "empty_part"),
        ('[{"a", 0}]', "score_out_of_range"),
        ('[{"a", 6}]', "score_out_of_range"),
        ('[{"a", -1}]', "score_out_of_range"),
        ('[{"a", -0}]', "score_out_of_range"),
        ('[{"a", 10}]', "score_out_of_range"),
        (f'[{{"a", {"9" * 5000}}}]', "score_out_of_range"),
        ('[{"a", 3.0}]', "score_not_an_integer"),
        ('[{"a", 03}]', "score_not_an_integer"),
        ('[{"a", 1e0}]', "score_not_an_integer"),
        ('[{"a", "3"}]', "score_not_an_integer"),
        ('[{"a", null}]', "score_not_an_integer"),
        ('[{"a", 3/5}]', "not_a_list_of_pairs"),
        ('[{"a", ３}]', "score_not_an_integer"),
        ('[{"a", NaN}]', "score_not_an_integer"),
    ],
)
def test_what_is_refused(answer: str, reason: str) -> None:
    with pytest.raises(AnswerRefused) as refused:
        parse_parts(answer)
    assert refused.value.reason == reason
    assert reason in REASONS


@given(PARTS, st.data())
def test_a_list_that_breaks_off_is_unfinished_wherever(parts: list[tuple[str, int]], data: st.DataObject) -> None:
    whole = "[" + ", ".join(f"{{{json.dumps(text)}, {score}}}" for text, score in parts) + "]"
    with pytest.raises(AnswerRefused) as refused:
        parse_parts(whole[: data.draw(st.integers(1, len(whole) - 1))])
    assert refused.value.reason == "unfinished_list"


def test_every_reason_is_said_somewhere_above() -> None:
    marks = test_what_is_refused.pytestmark  # type: ignore[attr-defined]
    assert {reason for mark in marks for _, reason in mark.args[1]} == set(REASONS)


@pytest.mark.parametrize(
    "answer",
    [
        "[" * 100_000,
        "[{" * 50_000,
        '[{"' + '\\"' * 50_000,
        '[{"' + "a" * 100_000,
        '[{"' + "\\u00e9" * 17_000,
        '[{"a", ' + "1" * 100_000,
        '[{"a", 1}, ' * 9_000,
        "```json\n" * 12_000,
        " " * 100_000 + "[" + " " * 100_000,
        '[{"a", 1}' + " " * 100_000 + "x",
        "x" * 100_000 + "[",
    ],
)
def test_hostile_answers_take_no_time(answer: str) -> None:
    began = time.process_time()
    with pytest.raises(AnswerRefused):
        parse_parts(answer)
    assert time.process_time() - began < 0.5


def test_long_answers_take_no_time() -> None:
    began = time.process_time()
    assert len(parse_parts("[" + ",".join(['{"a", 1}'] * 20_000) + "]")) == 20_000
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("answer", ['[{"a secret", 9}]', 'a secret [{"a", 1}]', '[{"a secret", 1} secret]'])
def test_a_refusal_holds_no_text(answer: str) -> None:
    with pytest.raises(AnswerRefused) as refused:
        parse_parts(answer)
    assert "secret" not in str(refused.value)

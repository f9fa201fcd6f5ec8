"""Every known shape of a row, and every reason to refuse one."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.checks import REASONS, usable_pair
from pipeline.data.pairs import Pair
from pipeline.data.rows import RowProblem

USER = {"role": "user", "content": "How do I boil an egg?"}
SYSTEM = {"role": "system", "content": "Be brief."}


def answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def outcome(row: dict[str, Any]) -> Pair | str:
    """The pair, or the reason against it."""
    try:
        return usable_pair(row, "here#0")[0]
    except RowProblem as problem:
        return problem.reason


def whole(chosen: str = "Seven minutes.", rejected: str = "No.", context: Any = (USER,), **more: Any) -> dict[str, Any]:
    """A row of UltraFeedback-binarized."""
    return {"chosen": [*context, answer(chosen)], "rejected": [*context, answer(rejected)], **more}


PLAIN = {"prompt": "How do I boil an egg?", "chosen": "Seven minutes.", "rejected": "No."}


@pytest.mark.parametrize(
    "row",
    [
        whole(),
        whole(prompt="only the first user message", messages=[USER], score_chosen=None),
        PLAIN,
        {**PLAIN, "prompt": [USER]},
        {"prompt": [USER], "chosen": [answer("Seven minutes.")], "rejected": [answer("No.")]},
        {"prompt": USER["content"], "chosen": [answer("Seven minutes.")], "rejected": [answer("No.")]},
        whole(prompt=[USER]),
        whole(context=[{**USER, "name": "an extra key of a message"}]),
    ],
    ids=["whole", "whole+extra", "plain", "plain+turns", "trl", "text+turn", "whole+prompt", "extra-keys"],
)
def test_every_shape_gives_the_same_pair(row: dict[str, Any]) -> None:
    pair, expected = outcome(row), outcome(whole())
    assert isinstance(pair, Pair)
    assert pair == expected
    assert pair.prompt == [USER]
    assert (pair.chosen, pair.rejected, pair.source) == ("Seven minutes.", "No.", "here#0")


def test_context_is_every_turn_before_the_answer_system_turns_kept() -> None:
    context = [SYSTEM, USER, answer("How soft?"), {"role": "user", "content": "Soft."}]
    continued = {"prompt": context, "chosen": [answer("Six.")], "rejected": [answer("Ten.")]}
    for row in (whole("Six.", "Ten.", context, prompt=USER["content"]), continued):
        pair = outcome(row)
        assert isinstance(pair, Pair)
        assert pair.prompt == context


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("missing_field", {}),
    ("missing_field", {"chosen": [USER, answer("a")]}),
    ("missing_field", whole() | {"rejected": None}),
    ("missing_field", {"chosen": "a", "rejected": "b"}),
    ("missing_field", whole() | {"chosen": [USER, {"role": "assistant"}]}),
    ("wrong_type", whole() | {"chosen": 3}),
    ("wrong_type", whole() | {"chosen": {"role": ["user"], "content": ["a"]}}),
    ("wrong_type", whole() | {"chosen": "text beside turns", "prompt": "p"}),
    ("wrong_type", whole() | {"chosen": [USER, "text"]}),
    ("wrong_type", whole() | {"chosen": [USER, {"role": "assistant", "content": None}]}),
    ("wrong_type", whole() | {"chosen": [USER, {"role": "assistant", "content": [{"type": "text", "text": "a"}]}]}),
    ("wrong_type", whole() | {"chosen": [USER, {"role": 2, "content": "a"}]}),
    ("wrong_type", PLAIN | {"prompt": 7}),
    ("wrong_type", whole(gold=7)),
    ("bad_text", whole(chosen="half an emoji \ud83d")),
    ("bad_text", whole(context=[{"role": "user\udc00", "content": "a"}])),
    ("no_assistant_turn", whole() | {"chosen": []}),
    ("no_assistant_turn", {"prompt": [USER, answer("a")], "chosen": [], "rejected": [answer("b")]}),
    ("no_assistant_turn", whole() | {"chosen": [USER]}),
    ("no_assistant_turn", whole() | {"rejected": [USER, answer("a"), USER]}),
    ("no_assistant_turn", whole(gold=[USER])),
    ("context_mismatch", whole() | {"rejected": [SYSTEM, USER, answer("b")]}),
    ("context_mismatch", whole() | {"rejected": [{"role": "user", "content": "Why?"}, answer("b")]}),
    ("context_mismatch", whole(gold=[SYSTEM, USER, answer("c")])),
    ("empty_prompt", whole(context=[])),
    ("empty_prompt", whole(context=[SYSTEM])),
    ("empty_prompt", whole(context=[SYSTEM, {"role": "user", "content": " \u200b\n"}])),
    ("empty_prompt", PLAIN | {"prompt": ""}),
    ("empty_response", whole(rejected="")),
    ("empty_response", whole(chosen=" \n\t\u00a0\u3000\r\n")),
    ("empty_response", whole(rejected="\u200b")),
    ("empty_response", whole(chosen="\ufeff\u2060\x00")),
    ("empty_response", whole("", "")),
    ("identical_responses", whole("a", "a")),
]


@pytest.mark.parametrize(("reason", "row"), REFUSED)
def test_refused(reason: str, row: dict[str, Any]) -> None:
    assert outcome(row) == reason


def test_every_reason_of_one_row_is_tested_and_known() -> None:
    assert {reason for reason, _ in REFUSED} == set(REASONS) - {"bad_json", "duplicate", "prompt_in_test"}


def test_first_reason_of_the_table_wins() -> None:
    """A row with many faults is refused for the first that the table names; mending it shows the next."""
    other = {"role": "user", "content": " "}
    row: dict[str, Any] = {"chosen": [USER], "rejected": [other, answer("")]}
    steps = [
        {"chosen": [USER, {"role": "assistant", "content": 0}]},
        {"chosen": [USER, {"role": "user", "content": "\udc00"}]},
        {"chosen": [USER, {"role": "user", "content": ""}]},
        {"chosen": [USER, answer("")]},
        {"chosen": [other, answer("")]},
        {"chosen": [USER, answer("")], "rejected": [USER, answer("")]},
        {"chosen": [USER, answer("a")], "rejected": [USER, answer("a")]},
    ]
    found = [outcome(row | step) for step in steps]
    assert found == [
        "wrong_type",
        "bad_text",
        "no_assistant_turn",
        "context_mismatch",
        "empty_prompt",
        "empty_response",
        "identical_responses",
    ]
    assert found == [reason for reason in REASONS if reason in found]


@pytest.mark.parametrize("text", ["\u2800", "\U0001f44d", "\ue000", "\u0378", ".", "\u200b.", "\ufffd"])
def test_what_can_be_seen_is_a_response(text: str) -> None:
    """Also private (U+E000) and unassigned (U+0378) characters: which are unassigned depends on Python's version."""
    assert isinstance(outcome(whole(chosen=text)), Pair)


def test_earlier_empty_turns_are_left_as_they_are() -> None:
    context = [USER, answer(""), {"role": "user", "content": "Hello?"}]
    pair = outcome(whole(context=context))
    assert isinstance(pair, Pair)
    assert pair.prompt == context


@pytest.mark.parametrize(
    ("value", "stored"),
    [(7, 7.0), (7.5, 7.5), (-1, -1.0), (None, None)],
)
def test_scores(value: Any, stored: float | None) -> None:
    pair, dropped = usable_pair(whole(score_chosen=value), "")
    assert (pair.score_chosen, dropped) == (stored, 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "7.5", True, [1], 10**400])
def test_a_score_that_is_no_finite_number_is_dropped_and_counted(value: Any) -> None:
    pair, dropped = usable_pair(whole(score_chosen=value, score_rejected=1), "")
    assert (pair.score_chosen, pair.score_rejected, dropped) == (None, 1.0, 1)


@pytest.mark.parametrize(
    ("gold", "stored"),
    [
        ("Best.", "Best."),
        ([answer("Best.")], "Best."),
        ([USER, answer("Best.")], "Best."),
        (None, None),
        ("", None),
        ([], None),
        ([USER, answer(" ")], None),
    ],
)
def test_gold(gold: Any, stored: str | None) -> None:
    pair = outcome(whole(gold=gold))
    assert isinstance(pair, Pair)
    assert pair.gold == stored


TEXT = st.text(alphabet=st.characters(codec=None, exclude_categories=()), max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "x"]), inner),
    max_leaves=8,
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]) | JSON, "content": TEXT | JSON}
)
FIELD = JSON | st.lists(MESSAGE, max_size=4)
JUNK = st.dictionaries(
    st.sampled_from(["prompt", "chosen", "rejected", "gold", "score_chosen", "score_rejected"]), FIELD
)


@settings(max_examples=400, deadline=None)
@given(JUNK)
def test_junk_is_a_pair_or_a_reason(row: dict[str, Any]) -> None:
    found = outcome(row)
    assert isinstance(found, Pair) or found in REASONS


@pytest.mark.parametrize("row", [row for _, row in REFUSED])
def test_details_never_hold_text(row: dict[str, Any]) -> None:
    """Every text of the row is swapped for one that cannot be in a detail by chance."""
    secret = "q9Zx7"

    def swap(value: Any) -> Any:
        if isinstance(value, dict):
            keep = {key: item for key, item in value.items() if key == "role" and item == "assistant"}
            return {key: swap(item) for key, item in value.items()} | keep
        if isinstance(value, list):
            return [swap(item) for item in value]
        return secret + value if isinstance(value, str) else value

    try:
        usable_pair(swap(row), "")
    except RowProblem as problem:
        assert secret not in problem.detail  # noqa: PT017


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=4), TEXT, TEXT)
def test_texts_are_stored_character_by_character(turns: list[str], chosen: str, rejected: str) -> None:
    roles = ["user" if index % 2 == 0 else "assistant" for index in range(len(turns))]
    context = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=True)]
    pair = outcome(whole(chosen, rejected, context))
    if isinstance(pair, Pair):
        assert (pair.prompt, pair.chosen, pair.rejected) == (context, chosen, rejected)

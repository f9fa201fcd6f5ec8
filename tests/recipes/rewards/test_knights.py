"""Knights and Knaves: what counts as an answer, and what a model may not get away with."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DataError
from recipes.rewards.knights import knights_reward, read_answer, read_solution

SOLUTION = "(1) Zoey is a knight\n(2) Oliver is a knave"
ROLES = {"zoey": "knight", "oliver": "knave"}


def reward(answer: str, solution: str = SOLUTION) -> float:
    (found,) = knights_reward(["?"], [f"<think>hm</think><answer>{answer}</answer>"], [solution])
    return found


@pytest.mark.parametrize(
    "answer",
    [
        SOLUTION,
        "(2) Oliver is a knave\n(1) Zoey is a knight",
        "Zoey is a knight, and Oliver is a knave.",
        "ZOEY IS A KNIGHT; oliver is a Knave",
        "\r\n 1. Zoey  is\u00a0a\tknight\r\n 2. Oliver is a\nknave \r\n",
        "So the answer is:\n- Zoey is a knight\n- Oliver is a knave\nThat is all.",
        "Zoey is a knight!Oliver is a knave",
    ],
)
def test_right(answer: str) -> None:
    assert reward(answer) == 2.0


@pytest.mark.parametrize(
    "answer",
    [
        "(1) Zoey is a knave\n(2) Oliver is a knave",
        "(1) Zoey is a knave\n(2) Oliver is a knight",
    ],
)
def test_wrong(answer: str) -> None:
    assert reward(answer) == -1.5


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "I do not know",
        "Zoey is a knight",
        "Zoey is a knight and so is Oliver",
        "(1) Zoey is a knight\n(2) Oliver is a knave\n(3) Oliver is a knight",
        "Zoey is a knight\nZoey is a knight",
        "Zoey is a knight\nZoey is a knave",
        "Zoey is not a knight\nOliver is a knave",
        "Zoey is a knight or a knave\nOliver is a knave",
        "Zoey is a knight or knave",
        "Zoey is a knight\nOlivera is a knave",
        "Zoey is a knight\nMcOliver is a knave",
        "Zoey is a knight\nOliver is a knaves",
        "Zoey is a knight\nHe is a knave",
        "Zoey, Oliver: knight, knave",
        "Zоey is a knight\nOliver is a knave",
        "Zo\u200bey is a knight\nOliver is a knave",
        "{'zoey': 'knight', 'oliver': 'knave'}",
        "__import__('os').abort() knight knave",
        SOLUTION * 2,
    ],
)
def test_unreadable(answer: str) -> None:
    """Among them a Cyrillic о, and a zero-width space."""
    assert reward(answer) == -2.0


def test_broken_tags_are_unreadable_whatever_the_answer() -> None:
    completions = [
        SOLUTION,
        f"<answer>{SOLUTION}</answer>",
        f"<think></think><answer>{SOLUTION}</answer><answer>{SOLUTION}</answer>",
        f"<think><answer>{SOLUTION}</answer></think>",
        f"<think>{SOLUTION}</think><answer></answer>",
    ]
    assert knights_reward(["?"] * 5, completions, [SOLUTION] * 5) == [-2.0] * 5


def test_every_completion_has_its_own_solution_and_turns_are_read() -> None:
    text = f"<think>hm</think><answer>{SOLUTION}</answer>"
    completions = [text, [{"role": "assistant", "content": text}], "<think></think><answer>Zoë is a knave</answer>"]
    solutions = [SOLUTION.replace("Zoey", "Zoe"), SOLUTION, "(1) Zoe\u0308 is a knave"]
    assert knights_reward(["?"] * 3, completions, solution_text_format=solutions, quiz=["?"] * 3) == [-2.0, 2.0, 2.0]


def test_names_within_names_and_names_that_look_like_patterns() -> None:
    solution = "(1) Ann is a knight\n(2) Mary Ann is a knave\n(3) D'Arcy (.*) is a knight"
    assert reward("Mary Ann is a knave. Ann is a knight. D'Arcy (.*) is a knight.", solution) == 2.0
    assert reward("Mary Ann is a knight. Ann is a knave. D'Arcy (.*) is a knight.", solution) == -1.5
    assert reward("Mary Ann is a knave. Ann is a knight. D'Arcy xyz is a knight.", solution) == -2.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SOLUTION, ROLES),
        ("\n 12. Zoey is a knight.\r\n\n(2)Oliver  is a KNAVE\n", ROLES),
        ("Zoey is a knight", {"zoey": "knight"}),
        ("", None),
        ("Zoey is a knight and Oliver is a knave", None),
        ("Zoey is a knight\nnothing", None),
        ("Zoey is a knight\nZOEY is a knave", None),
        ("(1) is a knight", None),
        ("7 is a knight", None),
        ("Zoey is a knight is a knight", None),
    ],
)
def test_solutions(text: str, expected: dict[str, str] | None) -> None:
    assert read_solution(text) == expected


def test_a_solution_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(DataError, match=r"completion 1 of the batch.*solution_text_format"):
        knights_reward(["?"] * 2, ["a", "b"], [SOLUTION, "Zoey is a"])


def official(answer: str, names: list[str]) -> dict[str, str] | None:
    """The rule of the official code, name by name."""
    if len(re.findall("knight|knave", answer.lower())) != len(names):
        return None
    found = [re.search(rf"\b{re.escape(name)}\b\s+is\s+a\s+\b(knight|knave)\b", answer, re.I) for name in names]
    return {name: match[1].lower() for name, match in zip(names, found, strict=True) if match} if all(found) else None


WORDS = ["zoey", "Oliver", "is", "a", "knight", "knave", "zoey is a knight", "Oliver is a knave", "oliver is a knight"]


@given(st.lists(st.sampled_from([*WORDS, "(1)", "\n", ",", "not", "s"]), max_size=12), st.sampled_from(["", " "]))
def test_reads_as_the_official_code(parts: list[str], space: str) -> None:
    answer = space.join(parts)
    assert read_answer(answer, ["zoey", "oliver"]) == official(answer, ["zoey", "oliver"])


@pytest.mark.parametrize(
    "piece",
    ["Zoey ", "Zoey is a ", "Zoey is a knight ", " ", "(1)", "knight", "Z", "\n", "Zoey\tis  "],
)
def test_huge_text_is_read_fast(piece: str) -> None:
    text = piece * (2 * 10**6 // len(piece))
    began = time.perf_counter()
    assert reward(text) == -2.0
    assert reward(text.replace("knight", "") + SOLUTION) in (2.0, -2.0)
    assert read_solution(text) is None
    assert time.perf_counter() - began < 3

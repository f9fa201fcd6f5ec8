"""The exact answer: +2, -1.5 or -2."""

import pytest

from recipes.rewards.answer import exact_reward

PARIS = "<think>hm</think><answer>{}</answer>"


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (PARIS.format("Paris"), 2.0),
        (PARIS.format("\n Paris \t"), 2.0),
        (PARIS.format("paris"), -1.5),
        (PARIS.format("Paris or Rome"), -1.5),
        (PARIS.format(""), -2.0),
        (PARIS.format(" \n"), -2.0),
        (PARIS.format("Paris") + "<answer>Paris</answer>", -2.0),
        ("Paris", -2.0),
        ("<answer>Paris</answer>", -2.0),
    ],
)
def test_scores(completion: str, expected: float) -> None:
    assert exact_reward(["?"], [completion], answer=["Paris"]) == [expected]


def test_each_completion_has_its_own_answer() -> None:
    completions = [PARIS.format(text) for text in ("2  3", "Zoe\u0308", "x")]
    assert exact_reward(["?"] * 3, completions, answer=["2 3", "Zoë", "y"], source=["a"] * 3) == [2.0, 2.0, -1.5]


def test_turns() -> None:
    assert exact_reward(
        [[{"role": "user", "content": "?"}]], [[{"role": "assistant", "content": PARIS.format("a")}]], ["a"]
    ) == [2.0]


def test_answers_are_compared_never_evaluated() -> None:
    assert exact_reward(["?"] * 2, [PARIS.format("1 + 1"), PARIS.format("{}")], ["2", "{}"]) == [-1.5, 2.0]

"""The four tags, each exactly once and in order, in whatever text a model writes."""

import time
from itertools import permutations

import pytest

from recipes.rewards.format import TAGS, answer_of, format_reward

GOOD = "<think>hm</think><answer>5</answer>"


def reward(completion: str, prompt: str = "What?") -> float:
    (found,) = format_reward([prompt], [completion])
    return found


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"Well. {GOOD} So.",
        "<think></think><answer></answer>",
        "<think>\n…\n</think>\n\n<answer>\nфü🙂\u202e\n</answer>\n",
        "<think>< think> <THINK> </ answer></think><answer>&lt;answer&gt;</answer>",
        "<<think>></think><answer></answer>",
        "\x00<think>\ud800</think><answer>a < b > c</answer>",
    ],
    ids=["plain", "around", "empty", "lines and unicode", "lookalikes", "brackets", "broken unicode"],
)
def test_kept(text: str) -> None:
    assert reward(text) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "<answer>5</answer>",
        "<think>hm</think>5",
        "<think>hm<answer>5</answer>",
        GOOD + GOOD,
        GOOD + "<think>",
        "</answer>" + GOOD,
        "<think>a<think>b</think></think><answer>5</answer>",
        "<think>a<answer>5</answer></think>",
        "<answer>5</answer><think>a</think>",
        "<Think>a</Think><answer>5</answer>",
        "<think >a</think ><answer>5</answer>",
        "＜think＞a＜/think＞＜answer＞5＜/answer＞",
        "<think>a</think><answer>5",
        "<think>a</think><answer>5<answer>",
        "<thi\u200bnk>a</think><answer>5</answer>",
    ],
)
def test_broken(text: str) -> None:
    assert reward(text) == -1.0


def test_one_order_alone() -> None:
    kept = [order for order in permutations(TAGS) if reward(" ".join(order)) == 1.0]
    assert kept == [TAGS]


def test_answer_is_what_stands_between() -> None:
    assert answer_of("x<think>1</think>2<answer> 3\n</answer>4") == " 3\n"
    assert answer_of("<answer>3</answer>") is None


def test_a_prompt_may_begin_the_response() -> None:
    rest = GOOD.removeprefix("<think>")
    assert reward(rest) == -1.0
    assert reward(rest, "User: What?\nAssistant: <think>") == 1.0
    assert reward(rest, "User: What?\nAssistant: <think>\n") == 1.0
    assert reward(GOOD, "User: What?\nAssistant: <think>") == -1.0
    assert reward(GOOD, "Write <think> first.") == 1.0


def test_turns() -> None:
    prompt = [{"role": "user", "content": "What? <think>"}]
    turns = [
        [{"role": "assistant", "content": GOOD}],
        [{"role": "assistant", "content": "<answer>5</answer>"}],
        [{"role": "assistant", "content": [{"type": "text", "text": GOOD[:9]}, {"type": "text", "text": GOOD[9:]}]}],
        [{"role": "assistant", "content": "<answer>5</answer>", "reasoning_content": "hm"}],
        [{"role": "assistant", "content": "<answer>5</answer>", "reasoning_content": "<think>hm"}],
        [{"role": "assistant", "content": None}],
        [{"role": "assistant"}],
        [],
        [{"role": "tool", "content": GOOD}],
    ]
    expected = [1.0, -1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -1.0]
    assert format_reward([prompt] * len(turns), turns, answer=["5"] * len(turns), trainer_state=None) == expected


def test_a_list_for_other_prompts_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        format_reward(["a", "b"], [GOOD])


@pytest.mark.parametrize("text", ["<" * 10**6, "<think>" * 10**5, "<answer>" * 10**5 + "</answer>" * 10**5])
def test_huge_text_is_read_fast(text: str) -> None:
    began = time.perf_counter()
    assert reward(text) == -1.0
    assert reward(f"<think>{'x' * 10**6}</think><answer>{'y' * 10**6}</answer>") == 1.0
    assert time.perf_counter() - began < 1

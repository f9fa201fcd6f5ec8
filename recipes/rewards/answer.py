"""A response's answer against the right one: Logic-RL's answer reward (METHODS 5.10), +2, -1.5 or -2."""

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from recipes.rewards.format import answer_of
from recipes.rewards.text import Text, response_texts

RIGHT, WRONG, UNREADABLE = 2.0, -1.5, -2.0

Answer = TypeVar("Answer")


def score_answer(text: str, right: Answer, read: Callable[[str], Answer | None]) -> float:
    """+2 where the answer reads as the right one, -1.5 where as another; -2 where `read` gives None or the tags of
    `recipes.rewards.format` are not as they should be."""
    between = answer_of(text)
    found = None if between is None else read(between)
    if found is None:
        return UNREADABLE
    return RIGHT if found == right else WRONG


def words(text: str) -> str | None:
    """The text with composed letters and single spaces; None where there is none."""
    return " ".join(unicodedata.normalize("NFC", text).split()) or None


def exact_reward(
    prompts: Sequence[Text], completions: Sequence[Text], answer: Sequence[str], **columns: Any
) -> list[float]:
    """Whether the text between the answer's tags is column `answer`, white space aside; letter case counts."""
    texts = response_texts(prompts, completions)
    return [score_answer(text, words(right), words) for text, right in zip(texts, answer, strict=True)]

"""Thoughts and answer between their tags: Logic-RL's format reward (METHODS 5.10), +1 or -1."""

from collections.abc import Sequence
from typing import Any

from recipes.rewards.text import Text, response_texts

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
KEPT, BROKEN = 1.0, -1.0


def answer_of(text: str) -> str | None:
    """What stands between the answer's tags; None unless each of the four tags is there exactly once, in order.

    Tags are these characters and no others: `<Think>` or `<think >` is none. Text before, between and after is allowed,
    and any of the parts may be empty, as in the official code.
    """
    places = [text.find(tag) for tag in TAGS]
    if any(text.count(tag) != 1 for tag in TAGS) or places != sorted(places):
        return None
    return text[places[2] + len(TAGS[2]) : places[3]]


def format_reward(prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[float]:
    """+1 where each of the four tags is there exactly once, in order; else -1."""
    return [BROKEN if answer_of(text) is None else KEPT for text in response_texts(prompts, completions)]

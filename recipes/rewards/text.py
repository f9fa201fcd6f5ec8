"""The text that a reward function reads: what the model said, whichever way TRL hands it over."""

from collections.abc import Mapping, Sequence
from typing import Any

Messages = Sequence[Mapping[str, Any]]
Text = str | Messages
"""A plain string, or turns with `role` and `content`."""

OPENING = "<think>"


def response_texts(prompts: Sequence[Text], completions: Sequence[Text]) -> list[str]:
    """The text of each completion, in order.

    A plain prompt may end with the opening tag of the thoughts, as Logic-RL's do: it is a part of the response then.
    Where a chat template's parser took the thoughts out of the text, they are put back between their tags.
    """
    return [_text(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]


def _text(prompt: Text, completion: Text) -> str:
    if not isinstance(completion, str):
        return "".join(_turn(message) for message in completion if message.get("role") == "assistant")
    begun = isinstance(prompt, str) and prompt.rstrip().endswith(OPENING)
    return OPENING + completion if begun else completion


def _turn(message: Mapping[str, Any]) -> str:
    thoughts = message.get("reasoning_content")
    text = _content(message.get("content"))
    return f"{OPENING}{thoughts}</think>{text}" if isinstance(thoughts, str) else text


def _content(content: Any) -> str:
    """A turn's text: the content itself, or the text parts of a list."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))

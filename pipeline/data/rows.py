"""One row of a source to two conversations, whatever of the known shapes it has.

- `chosen` and `rejected` are lists of messages (`role`, `content`), each a whole conversation: UltraFeedback-binarized.
  `prompt`, if it is text, is not used then: in rows of several turns it is only the first of them.
- They are lists that only continue `prompt`, a list of messages (TRL's conversational format) or the user's text.
- They are texts, and `prompt` is the user's text or a list of messages.

Optional: `score_chosen` and `score_rejected`, numbers; `gold`, a third response as text, as one message or as a whole
conversation. All other columns are ignored.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.data.text import is_empty

COLUMNS = ("prompt", "chosen", "rejected", "gold", "score_chosen", "score_rejected")
REQUIRED = ("chosen", "rejected")

Message = dict[str, str]
"""`role` and `content`, nothing else."""


class RowProblem(Exception):
    """Why a row cannot be used: a reason of `pipeline.data.checks.REASONS`, and a detail that holds no text of it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Candidate:
    """A row whose fields have the right types. Each conversation is every turn, the response last."""

    chosen: list[Message]
    rejected: list[Message]
    gold: list[Message] | None
    score_chosen: float | None
    score_rejected: float | None
    scores_dropped: int
    """Scores that are no finite number; they are stored as null."""


def read_candidate(row: Mapping[str, Any]) -> Candidate:
    """Bring a row into one shape. Raises RowProblem: `missing_field` or `wrong_type`."""
    if {type(_present(row, name)) for name in REQUIRED} == {str, list}:
        raise RowProblem("wrong_type", "chosen and rejected: one is text, the other a list of messages")
    chosen, rejected = _conversation(row, "chosen"), _conversation(row, "rejected")
    score_chosen, score_rejected = _score(row.get("score_chosen")), _score(row.get("score_rejected"))
    given = sum(row.get(name) is not None for name in ("score_chosen", "score_rejected"))
    kept = sum(score is not None for score in (score_chosen, score_rejected))
    return Candidate(chosen, rejected, _gold(row, chosen), score_chosen, score_rejected, given - kept)


def _conversation(row: Mapping[str, Any], name: str) -> list[Message]:
    value, prompt = _present(row, name), row.get("prompt")
    if isinstance(value, str):
        return [*_prompt_turns(_present(row, "prompt")), _assistant(value)]
    turns = _messages(value, name)
    if isinstance(prompt, list) and turns:
        before = _messages(prompt, "prompt")
        whole = len(turns) > len(before) and turns[: len(before)] == before
        return turns if whole else [*before, *turns]
    if isinstance(prompt, str) and len(turns) == 1:
        return [*_prompt_turns(prompt), *turns]
    return turns


def _gold(row: Mapping[str, Any], chosen: list[Message]) -> list[Message] | None:
    value = row.get("gold")
    if value is None or value == []:
        return None
    if isinstance(value, str):
        turns = [*chosen[:-1], _assistant(value)]
    else:
        turns = _messages(value, "gold")
        turns = [*chosen[:-1], *turns] if len(turns) == 1 else turns
    return None if is_empty(turns[-1]["content"]) else turns


def _present(row: Mapping[str, Any], name: str) -> Any:
    value = row.get(name)
    if value is None:
        raise RowProblem("missing_field", name)
    return value


def _prompt_turns(prompt: Any) -> list[Message]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else _messages(prompt, "prompt")


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _messages(value: Any, name: str) -> list[Message]:
    if not isinstance(value, list):
        raise RowProblem("wrong_type", f"{name}: {_kind(value)}, not text or a list of messages")
    return [_message(item, f"{name}[{index}]") for index, item in enumerate(value)]


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict):
        raise RowProblem("wrong_type", f"{where}: {_kind(value)}, not a message")
    for key in ("role", "content"):
        if key not in value:
            raise RowProblem("missing_field", f"{where}.{key}")
        if not isinstance(value[key], str):
            raise RowProblem("wrong_type", f"{where}.{key}: {_kind(value[key])}, not text")
    return {"role": value["role"], "content": value["content"]}


def _score(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


_KINDS = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "an object")

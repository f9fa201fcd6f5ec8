"""Which rows can be used, and why not: the reasons of `data/refused/prepare.parquet`.

A row is refused for the first reason of `REASONS` that holds; the order is that of the table.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.data.pairs import Pair
from pipeline.data.rows import Candidate, Message, RowProblem, read_candidate
from pipeline.data.text import is_empty, is_unicode

REASONS = {
    "bad_json": "a line or list item of the source is not a JSON object",
    "missing_field": "`chosen`, `rejected`, a message's `role` or `content`, or the `prompt` of plain texts is absent",
    "wrong_type": "one of them is there, but is neither text nor a list of messages",
    "bad_text": "a text holds an unpaired surrogate or bytes that are not UTF-8, and cannot be stored or tokenized",
    "no_assistant_turn": "a conversation is empty or does not end with the assistant's turn",
    "context_mismatch": "the turns before the two responses differ",
    "empty_prompt": "no user turn before the responses has anything to read",
    "empty_response": "a response has nothing to read: white space, control and format characters at most",
    "identical_responses": "the two responses are the same text",
    "duplicate": "an earlier row of the same source split has the same context and responses",
    "prompt_in_test": "train only: a test pair has the same turns before the response",
}
"""Reason -> what it means. Never fatal: only a source without one usable pair is."""


def usable_pair(row: Mapping[str, Any], source: str) -> tuple[Pair, int]:
    """The pair of one row, and how many of its scores were dropped as no finite numbers.

    `source` is stored with the pair. Raises RowProblem for every reason that one row alone can show.
    """
    found = read_candidate(row)
    conversations = {"chosen": found.chosen, "rejected": found.rejected}
    if found.gold is not None:
        conversations["gold"] = found.gold
    for name, turns in conversations.items():
        _check_unicode(name, turns)
    for name, turns in conversations.items():
        _check_ends_with_assistant(name, turns)
    context = found.chosen[:-1]
    for name, turns in conversations.items():
        _check_context(name, turns[:-1], context)
    _check_prompt(context)
    return _pair(found, context, source), found.scores_dropped


def _pair(found: Candidate, context: list[Message], source: str) -> Pair:
    chosen, rejected = found.chosen[-1]["content"], found.rejected[-1]["content"]
    for name, text in (("chosen", chosen), ("rejected", rejected)):
        if is_empty(text):
            raise RowProblem("empty_response", f"{name}: {len(text)} characters, nothing to read")
    if chosen == rejected:
        raise RowProblem("identical_responses", f"{len(chosen)} characters")
    return Pair(
        prompt=context,
        chosen=chosen,
        rejected=rejected,
        score_chosen=found.score_chosen,
        score_rejected=found.score_rejected,
        gold=found.gold[-1]["content"] if found.gold is not None else None,
        source=source,
    )


def _check_unicode(name: str, turns: list[Message]) -> None:
    for index, turn in enumerate(turns):
        for key, text in turn.items():
            if not is_unicode(text):
                raise RowProblem("bad_text", f"{name}: turn {index}, {key}")


def _check_ends_with_assistant(name: str, turns: list[Message]) -> None:
    if not turns or turns[-1]["role"] != "assistant":
        raise RowProblem("no_assistant_turn", f"{name}: {len(turns)} turns")


def _check_context(name: str, turns: list[Message], context: list[Message]) -> None:
    if len(turns) != len(context):
        raise RowProblem("context_mismatch", f"chosen: {len(context)} turns before the response, {name}: {len(turns)}")
    differing = [index for index, (turn, other) in enumerate(zip(turns, context, strict=True)) if turn != other]
    if differing:
        raise RowProblem("context_mismatch", f"chosen and {name}: turn {differing[0]} of {len(context)} differs")


def _check_prompt(context: list[Message]) -> None:
    users = [turn for turn in context if turn["role"] == "user"]
    if all(is_empty(turn["content"]) for turn in users):
        raise RowProblem("empty_prompt", f"{len(context)} turns before the response, {len(users)} of the user")

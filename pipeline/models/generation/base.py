"""What a generator takes and gives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from transformers import PreTrainedTokenizerFast

from pipeline.errors import ModelError
from pipeline.models.chat import Chat

OnAnswers = Callable[[int, int], None]
"""Told the number of prompts that are newly answered, and of tokens that were computed for them."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What follows a prompt."""

    ids: list[int]
    """Without the token that ended it."""
    stop: int | None
    """The token that ended it; None where it was cut."""


class Generator(Protocol):
    """Answers prompts, in the given order."""

    @property
    def context(self) -> int:
        """Tokens that a prompt and its answer may have together."""

    def answers(
        self, prompts: Sequence[Sequence[int]], names: Sequence[str], on_answers: OnAnswers | None = None
    ) -> list[Answer]:
        """`names`: how errors call each prompt. An answer ends at a stop, or where the limit or the context does.

        Raises ModelError for a prompt that leaves no room, NonFiniteError where the model computes no numbers.
        """


def stop_ids(tokenizer: PreTrainedTokenizerFast, chat: Chat) -> frozenset[int]:
    """The tokens that end an answer: the end of a turn, and the end of text where the tokenizer has one.

    Raises ModelError when there is neither.
    """
    found = {chat.end_of_turn_id, tokenizer.eos_token_id}
    return frozenset(int(token) for token in found if token is not None)


def rooms(prompts: Sequence[Sequence[int]], names: Sequence[str], context: int, max_new_tokens: int) -> list[int]:
    """How many tokens the answer to each prompt may have: `max_new_tokens`, or fewer where the context ends before.

    Raises ModelError, naming the prompt, for one that is empty or leaves no room.
    """
    found = []
    for ids, name in zip(prompts, names, strict=True):
        if not ids:
            raise ModelError(f"{name}: the prompt holds no token; the model's chat template writes nothing")
        if len(ids) >= context:
            raise ModelError(f"{name} has {len(ids)} tokens and the model reads {context}: no room for an answer.")
        found.append(min(max_new_tokens, context - len(ids)))
    return found

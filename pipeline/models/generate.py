"""Greedy answers as text: the same every time, whatever a model's generation config says."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from pipeline.models.budget import TokenBudget
from pipeline.models.chat import Chat
from pipeline.models.generation.base import stop_ids
from pipeline.models.generation.batches import TransformersGenerator

AT_ONCE = 16
"""Conversations in a batch. No param: in 16 bits an answer may depend on its neighbours, and so on their number."""


class Written(NamedTuple):
    """An answer: its text, and its tokens without the one that ended it."""

    text: str
    tokens: int


def greedy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    chat: Chat,
    conversations: Sequence[Sequence[Mapping[str, str]]],
    max_new_tokens: int,
) -> list[Written]:
    """The most likely token again and again, until the end of the turn, the end of the context or `max_new_tokens`.

    Sampling settings and penalties of the model's generation config play no part.

    Raises ModelError when a conversation leaves no room for an answer; TemplateRefusal when it cannot be rendered.
    """
    prompts = [chat.encode(conversation) for conversation in conversations]
    longest = max(map(len, prompts), default=0) + max_new_tokens
    budget = TokenBudget(AT_ONCE * longest, model.device)
    generator = TransformersGenerator(model, stop_ids(tokenizer, chat), max_new_tokens, budget)
    names = [f"Conversation {number}" for number in range(1, len(prompts) + 1)]
    answers = generator.answers(prompts, names)
    return [Written(tokenizer.decode(answer.ids, skip_special_tokens=True), len(answer.ids)) for answer in answers]

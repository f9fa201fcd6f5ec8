"""Greedy answers of start and policy to the prompts of `evaluate.prompts`."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from pipeline.errors import ConfigError
from pipeline.models.chat import Chat
from pipeline.models.generate import greedy
from pipeline.models.template import TemplateRefusal


def answers_before_and_after(
    start: PreTrainedModel,
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    chat: Chat,
    prompts: Sequence[str],
    max_new_tokens: int,
) -> list[dict[str, Any]]:
    """`prompt`, `before`, `after` and `tokens` (of the latter) of each prompt, given as one user turn.

    Raises ConfigError where the chat template refuses a prompt.
    """
    conversations = [[{"role": "user", "content": prompt}] for prompt in prompts]
    try:
        before, after = (greedy(model, tokenizer, chat, conversations, max_new_tokens) for model in (start, policy))
    except TemplateRefusal as refusal:
        raise ConfigError(f"evaluate.prompts: the chat template cannot express a prompt: {refusal}") from refusal
    return [
        {"prompt": prompt, "before": first.text, "after": second.text, "tokens": second.tokens}
        for prompt, first, second in zip(prompts, before, after, strict=True)
    ]

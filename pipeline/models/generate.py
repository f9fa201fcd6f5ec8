"""Greedy answers: the same text every time, whatever a model's generation config says."""

from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from pipeline.errors import ModelError
from pipeline.models.chat import Chat
from pipeline.models.load import context_length


@torch.inference_mode()
def greedy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    chat: Chat,
    conversations: Sequence[Sequence[Mapping[str, str]]],
    max_new_tokens: int,
) -> list[str]:
    """The most likely token again and again, until the end of the turn, the end of the context or `max_new_tokens`.

    One conversation at a time, so an answer does not depend on its neighbours. Sampling settings and penalties of the
    model's generation config play no part.

    Raises ModelError when a conversation leaves no room for an answer; TemplateRefusal when it cannot be rendered.
    """
    stops = {chat.end_of_turn_id, tokenizer.eos_token_id}
    limit = context_length(model.config)
    answers = []
    for number, conversation in enumerate(conversations):
        ids = chat.encode(conversation)
        room = min(max_new_tokens, limit - len(ids))
        if room <= 0:
            raise ModelError(
                f"Conversation {number + 1} has {len(ids)} tokens and the model reads {limit}: no room for an answer."
            )
        answers.append(tokenizer.decode(_continue(model, ids, room, stops), skip_special_tokens=True))
    return answers


def _continue(model: PreTrainedModel, ids: Sequence[int], room: int, stops: set[int | None]) -> list[int]:
    """Up to `room` ids that follow `ids`, without the one of `stops` that ends them."""
    answer: list[int] = []
    cache = None
    step = torch.tensor([ids], device=model.device)
    while len(answer) < room:
        output = model(input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1)
        token = int(output.logits[0, -1].argmax())
        if token in stops:
            break
        answer.append(token)
        cache = output.past_key_values
        step = torch.tensor([[token]], device=model.device)
    return answer

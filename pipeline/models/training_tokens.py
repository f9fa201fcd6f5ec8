"""A pair as it is trained on: context and responses in the policy's chat template, cut to the limits of training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.tokenize import TokenizeParams
from pipeline.models.chat import Chat
from pipeline.schemas.tokens import TRAINED

Span = tuple[int, int]


@dataclass(frozen=True)
class ResponseTokens:
    """Ids [T] of one response, the characters of each, whether the last id ends the turn, and the tokens cut off."""

    ids: list[int]
    offsets: list[Span]
    eos: bool
    cut: int


@dataclass(frozen=True)
class PairTokens:
    """A pair within the limits of training."""

    prompt_ids: list[int]
    prompt_cut: int
    """Tokens of the prompt that were cut off."""
    responses: dict[str, ResponseTokens]
    """`chosen`, `rejected`, and `gold` where the pair has one."""


class NotTrained(Exception):
    """A pair whose tokens are too many or too few to be trained on, as the params have it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def pair_tokens(chat: Chat, pair: Mapping[str, Any], params: TokenizeParams) -> PairTokens:
    """A row of `data/pairs/` as it is trained on.

    Raises TemplateRefusal where the chat template cannot express it, NotTrained where its lengths refuse it.
    """
    prompt_ids, prompt_cut = prompt_tokens(chat, pair["prompt"], params)
    if prompt_cut and params.long_prompts == "refuse":
        raise NotTrained(
            "long_prompt", f"{len(prompt_ids) + prompt_cut} tokens, max_prompt_tokens is {params.max_prompt_tokens}"
        )
    room = params.max_tokens - len(prompt_ids)
    responses = {name: response_tokens(chat, pair[name], room) for name in TRAINED if pair[name] is not None}
    for name, response in responses.items():
        if (length := len(response.ids) - response.eos) == 0:
            raise NotTrained("nothing_to_train", f"the {name} response has no token")
        if length < params.min_response_tokens:
            raise NotTrained(
                "short_response",
                f"the {name} response has {length} tokens, min_response_tokens is {params.min_response_tokens}",
            )
    return PairTokens(prompt_ids, prompt_cut, responses)


def prompt_tokens(chat: Chat, context: Sequence[dict[str, str]], params: TokenizeParams) -> tuple[list[int], int]:
    """Ids of the context up to where the answer begins, cut from the left; and how many were cut."""
    ids = chat.encode(list(context), add_generation_prompt=True)
    cut = max(0, len(ids) - params.max_prompt_tokens)
    return ids[cut:], cut


def response_tokens(chat: Chat, text: str, room: int) -> ResponseTokens:
    """A response within `room` tokens, cut from the right. The end-of-turn token is there only where nothing was cut.

    White space that the template trims is not trained on; offsets are indices into the text as given all the same.
    """
    start, end = chat.trim_span(text, "assistant")
    ids, spans = chat.text_ids(text[start:end])
    offsets = [(begin + start, stop + start) for begin, stop in spans]
    if len(ids) < room:
        return ResponseTokens([*ids, chat.end_of_turn_id], [*offsets, (end, end)], True, 0)
    return ResponseTokens(ids[:room], offsets[:room], False, len(ids) - room)

"""A pair as it is trained on: context and responses in the policy's chat template, cut to the limits of training."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config.tokenize import TokenizeParams
from pipeline.models.chat import Chat

Span = tuple[int, int]


@dataclass(frozen=True)
class ResponseTokens:
    """Ids [T] of one response, the characters of each, whether the last id ends the turn, and the tokens cut off."""

    ids: list[int]
    offsets: list[Span]
    eos: bool
    cut: int


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

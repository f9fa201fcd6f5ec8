"""A pair's prompt with a system text before it, which no cut takes away."""

from collections.abc import Mapping, Sequence
from itertools import takewhile

from pipeline.models.chat import Chat
from pipeline.models.template import TemplateRefusal
from pipeline.weights.sources.base import NotScored, SourcePair

Messages = Sequence[Mapping[str, str]]


def with_system(messages: Messages, text: str) -> list[dict[str, str]]:
    """The conversation with `text` as its system turn; an existing one follows it there, after an empty line."""
    if messages and messages[0]["role"] == "system":
        return _before_first_turn(messages, text)
    return [{"role": "system", "content": text}, *map(dict, messages)]


def _before_first_turn(messages: Messages, text: str) -> list[dict[str, str]]:
    first = messages[0]
    return [{"role": first["role"], "content": f"{text}\n\n{first['content']}"}, *map(dict, messages[1:])]


class SystemPrompt:
    """Token ids of a pair's conversation under a system text, for `ContrastSource`.

    Where the chat template knows no system turn, the text stands before the first turn's own. A prompt that is too long
    loses tokens of the conversation from its left, as in training, but none of the system text.

    Args:
        max_prompt_tokens: as in training.
        context: tokens that the model can read, prompt and response together.
    """

    def __init__(self, chat: Chat, text: str, max_prompt_tokens: int, context: int) -> None:
        self._chat = chat
        self._text = text
        self._max_prompt_tokens = max_prompt_tokens
        self._context = context

    def __call__(self, pair: SourcePair) -> list[int] | NotScored:
        """Raises TemplateRefusal for a conversation that the chat template refuses without the text too."""
        ids = self._encode(pair.messages)
        longest = max(len(response.ids) for response in pair.responses)
        room = min(self._max_prompt_tokens, self._context - longest)
        if len(ids) <= room:
            return ids
        kept = self._opening(pair.messages, ids)
        if kept >= room:
            return NotScored(
                "no_room", f"the system text takes {kept} tokens, and beside {longest} of the response there are {room}"
            )
        return ids[:kept] + ids[len(ids) - (room - kept) :]

    def _encode(self, messages: Messages) -> list[int]:
        try:
            return self._chat.encode(with_system(messages, self._text))
        except TemplateRefusal:
            return self._chat.encode(_before_first_turn(messages, self._text))

    def _opening(self, messages: Messages, ids: list[int]) -> int:
        """How many of the ids stand before the conversation's own text: they begin any conversation of this kind."""
        system = [message for message in messages[:1] if message["role"] == "system"]
        other = self._encode([*system, {"role": "user", "content": "?"}])
        return sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(ids, other, strict=False)))

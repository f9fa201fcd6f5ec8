"""Conversations to token ids: the chat template's own text with special tokens, contents as plain text.

For ordinary texts the result is that of `tokenizer.apply_chat_template`. It differs where a content holds the text of a
special token: here it stays text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerFast

from pipeline.errors import ModelError
from pipeline.models.template import ChatTemplate, Slot, TemplateRefusal
from pipeline.models.text import AddedTokenFinder, Encoded, TextTokenizer


@dataclass(frozen=True)
class _Run:
    """Text between two special tokens, tokenized as one piece as the tokenizer itself would."""

    parts: tuple[str | Slot, ...]
    inside: bool  # something stands before it in the sequence


class Chat:
    """The chat format of one model.

    Args:
        tokenizer: a fast tokenizer.
        template: text of a Jinja template that replaces the tokenizer's own.
        role: which `model.<role>.chat_template` errors name.

    Raises ModelError when there is no usable template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, template: str | None = None, role: str = "judge") -> None:
        self._param = f"model.{role}.chat_template"
        self._tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer, template, self._param)
        self._finder = AddedTokenFinder(tokenizer)
        skeleton = self._template.skeleton(("user",), empty=(False,), add_generation_prompt=True)
        # Some tokenizers do not mark the tokens of their turns as special; those that the template writes around a user
        # turn are part of the structure all the same.
        self._structural = self._finder.special | {name for _, _, name in self._found(skeleton)}
        self._text = TextTokenizer(tokenizer, self._structural)
        self._plans: dict[tuple[tuple[str, ...], tuple[bool, ...], bool], list[int | _Run]] = {}

    def text_ids(self, text: str, inside: bool = False) -> Encoded:
        """Ids and offsets (Python str indices into `text`) of a text on its own, such as a response; `inside` where
        other text stands before it."""
        return self._text.encode(text, inside=inside)

    def encode(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> list[int]:
        """Token ids of a conversation; messages have `role` and `content`.

        Raises TemplateRefusal when the template cannot express it.
        """
        contents = [message["content"] for message in messages]
        roles = tuple(message["role"] for message in messages)
        ids: list[int] = []
        for piece in self._plan(roles, contents, add_generation_prompt):
            if isinstance(piece, int):
                ids.append(piece)
            else:
                ids += self._text.encode(_fill(piece, contents), inside=piece.inside).ids
        return ids

    def encode_user(self, text: str) -> Encoded:
        """Ids and offsets of one user turn and the generation prompt.

        Offsets are indices into `text`, clipped to the part of it that the template keeps: a token of the template
        alone has start == end, a token that also covers some of `text` does not.
        """
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        first, last = self.trim_span(text)
        at = first
        for piece in self._plan(("user",), [text], True):
            if isinstance(piece, int):
                ids.append(piece)
                offsets.append((at, at))
                continue
            encoded = self._text.encode(_fill(piece, [text]), inside=piece.inside)
            ids += encoded.ids
            if any(isinstance(part, Slot) for part in piece.parts):
                shift = first - _literal_length_before_slot(piece)
                offsets += [(_clip(a + shift, first, last), _clip(b + shift, first, last)) for a, b in encoded.offsets]
                at = last
            else:
                offsets += [(at, at)] * len(encoded.ids)
        return Encoded(ids, offsets)

    def trim_span(self, text: str, role: Literal["user", "assistant"] = "user") -> tuple[int, int]:
        """The half-open span of a turn's content that the template keeps; templates may treat the two roles apart."""
        return self._slot(role).trim(text)

    @property
    def end_of_turn_id(self) -> int:
        """The token that ends an assistant turn: the first special token that the template writes after its content,
        else the end-of-text token.

        Raises ModelError when there is neither.
        """
        try:
            plan = self._plan(("user", "assistant"), ["x", "x"], False)
        except TemplateRefusal:
            plan = []
        ended = False
        for piece in plan:
            if isinstance(piece, int) and ended:
                return piece
            ended = ended or (isinstance(piece, _Run) and any(isinstance(p, Slot) and p.message for p in piece.parts))
        if self._tokenizer.eos_token_id is None:
            raise ModelError(
                "Nothing ends an assistant turn: the chat template writes no special token after it and the tokenizer "
                f"has no end-of-text token. Set `{self._param}` to a Jinja file whose assistant turns end with one."
            )
        return int(self._tokenizer.eos_token_id)

    def _slot(self, role: Literal["user", "assistant"]) -> Slot:
        roles = ("user",) if role == "user" else ("user", "assistant")
        runs = [piece for piece in self._plan(roles, ["x"] * len(roles), role == "user") if isinstance(piece, _Run)]
        return [part for run in runs for part in run.parts if isinstance(part, Slot)][-1]

    def _plan(self, roles: tuple[str, ...], contents: Sequence[str], add_generation_prompt: bool) -> list[int | _Run]:
        key = (roles, tuple(text == "" for text in contents), add_generation_prompt)
        if key not in self._plans:
            self._plans[key] = self._cut(
                self._template.skeleton(roles, empty=key[1], add_generation_prompt=add_generation_prompt)
            )
        return self._plans[key]

    def _found(self, skeleton: Sequence[str | Slot]) -> list[tuple[int, int, str]]:
        return self._finder.find("".join(part if isinstance(part, str) else _STAND_IN for part in skeleton))

    def _cut(self, skeleton: Sequence[str | Slot]) -> list[int | _Run]:
        """Cut a skeleton at its special tokens, found with a stand-in of one character for each content."""
        plan: list[int | _Run] = []
        at = 0
        for start, end, name in self._found(skeleton):
            if name in self._structural:
                plan += [_Run(_part(skeleton, at, start), inside=at > 0), self._finder.ids[name]]
                at = end
        length = sum(len(part) if isinstance(part, str) else 1 for part in skeleton)
        plan.append(_Run(_part(skeleton, at, length), inside=at > 0))
        return [piece for piece in plan if isinstance(piece, int) or piece.parts]


_STAND_IN = "\ue000"


def _part(skeleton: Sequence[str | Slot], start: int, end: int) -> tuple[str | Slot, ...]:
    """What lies between two positions of a skeleton whose slots count as one character."""
    parts: list[str | Slot] = []
    at = 0
    for part in skeleton:
        length = len(part) if isinstance(part, str) else 1
        if isinstance(part, str):
            if text := part[max(0, start - at) : max(0, end - at)]:
                parts.append(text)
        elif start <= at < end:
            parts.append(part)
        at += length
    return tuple(parts)


def _fill(run: _Run, contents: Sequence[str]) -> str:
    return "".join(part if isinstance(part, str) else _kept(part, contents[part.message]) for part in run.parts)


def _kept(slot: Slot, text: str) -> str:
    start, end = slot.trim(text)
    return text[start:end]


def _literal_length_before_slot(run: _Run) -> int:
    length = 0
    for part in run.parts:
        if isinstance(part, Slot):
            break
        length += len(part)
    return length


def _clip(index: int, low: int, high: int) -> int:
    return min(max(index, low), high)

"""A chat template as a skeleton: what it writes itself, and where the content of each message goes.

The template never sees a content: it is rendered with a sentinel in the place of each, so nothing that a person or a
model wrote can change what the template does.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import jinja2
from transformers import PreTrainedTokenizerFast

from pipeline.errors import ModelError, PipelineError

Strip = Literal["keep", "newlines", "white space"]

# Some templates write today's date into the system turn, and a stage's result must not depend on the day it ran. This
# is the date that Llama 3's templates name where none is given.
TEMPLATE_DATE = datetime(2024, 7, 26)

# White space around a sentinel shows how a template trims: strip() takes all of it, strip("\n") leaves the em space.
# More newlines than any template writes before or after a content of its own.
_LEFT, _RIGHT = "\n" * 9 + "\u2003", "\u2003" + "\n" * 9
# Inside a sentinel: what escaping, changing case or replacing would change.
_DELICATE = "x\"\\<&'\nY"


class TemplateRefusal(PipelineError):
    """The chat template cannot express this conversation; another one may be fine."""


@dataclass(frozen=True)
class Slot:
    """Where the content of message number `message` goes, and what the template strips from it first."""

    message: int
    left: Strip
    right: Strip

    def trim(self, text: str) -> tuple[int, int]:
        """The half-open span of `text` that the template keeps."""
        stripped = {"keep": None, "newlines": "\n", "white space": None}
        start = 0 if self.left == "keep" else len(text) - len(text.lstrip(stripped[self.left]))
        end = len(text) if self.right == "keep" else len(text.rstrip(stripped[self.right]))
        return start, max(start, end)


class ChatTemplate:
    """The Jinja chat template of a tokenizer, or `source` in its place.

    Args:
        param: the params path named in errors, such as `model.judge.chat_template`.

    Raises ModelError when there is no template, or it cannot render a single user turn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, source: str | None, param: str) -> None:
        self._tokenizer = tokenizer
        if source is None and not tokenizer.chat_template:
            raise ModelError(
                f"The tokenizer has no chat template; set `{param}` to a Jinja file with the template that the model "
                "was trained with (or use the model's instruction-tuned version)."
            )
        try:
            self._source = tokenizer.get_chat_template() if source is None else source
            self.skeleton(("user",), empty=(False,), add_generation_prompt=True)
        except (TemplateRefusal, ValueError) as error:
            raise ModelError(f"The chat template cannot be used ({error}); set `{param}` to a Jinja file.") from error

    def skeleton(self, roles: Sequence[str], *, empty: Sequence[bool], add_generation_prompt: bool) -> list[str | Slot]:
        """The rendered conversation as literal text and slots, in order.

        Args:
            roles: role of each message.
            empty: whether the content of each message is the empty string; such a message gets no slot.

        Raises TemplateRefusal when the template refuses the roles, or drops, repeats or changes a content.
        """
        opening, closing = _unused_characters(self._source)
        cores = {i: f"{opening}{i}{_DELICATE}{closing}" for i, is_empty in enumerate(empty) if not is_empty}
        contents = [f"{_LEFT}{cores[i]}{_RIGHT}" if i in cores else "" for i in range(len(roles))]
        rendered = self._render(roles, contents, add_generation_prompt)
        found = []
        for i, core in cores.items():
            if (count := rendered.count(core)) != 1:
                what = "drops or changes" if count == 0 else "repeats"
                raise TemplateRefusal(f"the chat template {what} the content of message {i + 1} ({roles[i]})")
            found.append((rendered.index(core), i))
        skeleton: list[str | Slot] = []
        done = 0
        for at, i in sorted(found):
            before, after = rendered[done:at], rendered[at + len(cores[i]) :]
            left, left_pad = _stripped(before, after=False)
            right, right_pad = _stripped(after, after=True)
            skeleton += [before[: len(before) - left_pad], Slot(i, left, right)]
            done = at + len(cores[i]) + right_pad
        skeleton.append(rendered[done:])
        literals = "".join(part for part in skeleton if isinstance(part, str))
        if opening in literals or closing in literals:
            raise TemplateRefusal("the chat template repeats a content in another form")
        return [part for part in skeleton if part != ""]

    def _render(self, roles: Sequence[str], contents: Sequence[str], add_generation_prompt: bool) -> str:
        if not roles:
            raise TemplateRefusal("the conversation has no message")
        if not all(re.fullmatch(r"\w+", role, re.ASCII) for role in roles):
            raise TemplateRefusal("a role is not a plain word")
        messages = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=True)]
        try:
            return self._tokenizer.apply_chat_template(
                messages,
                chat_template=self._source,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                strftime_now=TEMPLATE_DATE.strftime,
            )
        except jinja2.TemplateError as error:
            raise TemplateRefusal(f"the chat template refuses {', '.join(roles)}: {error}") from error
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise TemplateRefusal(f"the chat template fails on {', '.join(roles)}: {type(error).__name__}") from error


def _stripped(text: str, *, after: bool) -> tuple[Strip, int]:
    """What happened to the white space of a sentinel beside `text`, and how much of it is left there."""
    pad = _RIGHT if after else _LEFT
    inner = pad.strip("\n")
    meets = text.startswith if after else text.endswith
    if meets(pad):
        return "keep", len(pad)
    if meets(inner):
        return "newlines", len(inner)
    return "white space", 0


def _unused_characters(source: str) -> tuple[str, str]:
    """Two private-use characters that the template does not contain."""
    unused = (chr(code) for code in range(0xE000, 0xF900) if chr(code) not in source)
    return next(unused), next(unused)

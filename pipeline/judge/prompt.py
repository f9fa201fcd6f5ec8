"""The judge prompt: a text file with three placeholders, filled in one pass."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import ConfigError

PLACEHOLDERS = ("question", "answer_a", "answer_b")

Span = tuple[int, int]


class Filled(NamedTuple):
    """A filled prompt, and the half-open range of characters (Python str indices) that each placeholder became."""

    text: str
    spans: dict[str, Span]


@dataclass(frozen=True)
class PromptTemplate:
    """Literal text around the placeholders: `literals[0] {names[0]} literals[1] {names[1]} literals[2] …`."""

    literals: tuple[str, ...]
    names: tuple[str, ...]

    def fill(self, values: Mapping[str, str]) -> Filled:
        """Put the values in. What looks like a placeholder inside a value is text."""
        parts, spans, length = [self.literals[0]], {}, len(self.literals[0])
        for name, literal in zip(self.names, self.literals[1:], strict=True):
            value = values[name]
            spans[name] = (length, length + len(value))
            length += len(value) + len(literal)
            parts += [value, literal]
        return Filled("".join(parts), spans)


def load_prompt(path: Path) -> PromptTemplate:
    """Read a prompt file (UTF-8). The line end that editors put at the end of a file is no part of the prompt.

    The placeholders `{question}`, `{answer_a}` and `{answer_b}` may stand in any order, each exactly once and with text
    between them; other braces are text. Raises ConfigError, naming the file, when that is not so.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; it holds the judge prompt, restore it") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    return split_prompt(text.removesuffix("\n"), str(path))


def split_prompt(text: str, where: str) -> PromptTemplate:
    """Cut a prompt at its placeholders. `where` is named in errors."""
    pieces = re.split(r"\{(" + "|".join(PLACEHOLDERS) + r")\}", text)
    literals, names = tuple(pieces[::2]), tuple(pieces[1::2])
    for name in PLACEHOLDERS:
        if names.count(name) != 1:
            raise ConfigError(f"{where}: must hold {{{name}}} exactly once, not {names.count(name)} times")
    for first, second, between in zip(names, names[1:], literals[1:], strict=False):
        if not between:
            raise ConfigError(
                f"{where}: put text between {{{first}}} and {{{second}}}, so that a judge can tell them apart"
            )
    return PromptTemplate(literals, names)

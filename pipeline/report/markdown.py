"""Markdown that any text can be put into: whatever it holds, it stays text in GitHub's and other renderers."""

import re
from collections.abc import Sequence

from pipeline.report.characters import visible

_RISKY = re.compile(r"(?<=www)\.|[^0-9A-Za-z ,.;?!'()\u00a0-\U0010ffff-]", re.IGNORECASE)
"""Every ASCII sign that means something to a renderer; the last one of `www.`, which GitHub makes a link of."""


def escaped(text: str) -> str:
    """Text with numeric character references in place of every sign that could be markup.

    Renderers do not look for markup, links or table cells in references. New lines become `<br>`, invisible control
    characters the sign �.
    """
    lines = (visible(line) for line in text.replace("\r\n", "\n").split("\n"))
    return "<br>".join(_RISKY.sub(lambda found: f"&#{ord(found[0])};", line) for line in lines)


def code(text: str) -> str:
    """Text in typewriter type; leading and trailing spaces are shown as ␣."""
    inner = text.strip(" ")
    if not inner:
        return f"<code>{'␣' * len(text)}</code>"
    before, after = len(text) - len(text.lstrip(" ")), len(text) - len(text.rstrip(" "))
    return f"<code>{'␣' * before}{escaped(inner.replace(chr(10), '⏎'))}{'␣' * after}</code>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table of Markdown cells; the first `left` columns are aligned left, the others right."""
    ruler = [":---" if index < left else "---:" for index in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ruler, *rows))


def image(path: str, alternative: str) -> str:
    """An image file beside the page, with the text that stands for it."""
    return f"![{alternative}]({path})"

"""A pair as an SVG picture: both responses, every token in a box shaded by its weight (AttentionPO, Figures 4 and 5).

Text is laid out in typewriter cells and stretched to them, so that boxes fit in whatever font a viewer has.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from pipeline.report.boxes import Box, BoxedResponse
from pipeline.report.characters import cells, visible
from pipeline.report.shade import DARKEST, TICKS, shade
from pipeline.report.style import COLORS, INK, MUTED

WIDTH = 880
MARGIN = 20
CELL = 7.8
"""Width of a typewriter cell at the text size below."""
SPACE = 5.0
TEXT_SIZE = 13
LINE = 25
BOX = 20
PADDING = 2.0
"""Left and right of the text in its box."""
ROOM = WIDTH - 2 * MARGIN
COLUMNS = int(ROOM / CELL)

_MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace"
_SANS = "-apple-system,'Segoe UI',Helvetica,Arial,'DejaVu Sans',sans-serif"


def draw_pair(title: str, prompt: str, responses: Sequence[BoxedResponse], shown_tokens: int) -> str:
    """The picture as SVG text. `prompt` is shown as it is; of each response the first `shown_tokens` tokens."""
    parts: list[str] = []
    y = 30.0
    parts.append(_label(title, MARGIN, y, size=13, color=INK, bold=True))
    parts += _legend(y)
    y += 26
    for prompt_line in _wrapped(prompt):
        parts.append(_text(prompt_line, MARGIN, y, MUTED))
        y += 19
    for response in responses:
        y += 20
        cut = response.first(shown_tokens)
        parts.append(_label(response.name.capitalize(), MARGIN, y, size=13, color=COLORS[response.name], bold=True))
        parts.append(_label(_caption(response, cut), MARGIN + 78, y, size=12, color=MUTED))
        y += 10
        for line in _lines(cut.boxes):
            for x, piece in line:
                parts += _box(MARGIN + x, y, piece, COLORS[response.name])
            y += LINE
    return _document(parts, round(y + 12))


def _caption(response: BoxedResponse, cut: BoxedResponse) -> str:
    words = [f"{response.tokens:,} tokens"]
    if cut.shown < response.tokens:
        words.append(f"the first {cut.shown:,} shown")
    if response.characters_cut:
        words.append(f"{response.characters_cut:,} characters after the last judged token")
    return ", ".join(words)


@dataclass(frozen=True)
class _Piece:
    """A part of a box on one line; `blank` spaces before its text are not part of it."""

    text: str
    blank: int
    box: Box
    ends_line: bool

    @property
    def width(self) -> float:
        return cells(self.text) * CELL + 2 * PADDING if self.text else 0.0


def _lines(boxes: Sequence[Box]) -> Iterator[list[tuple[float, _Piece]]]:
    """Lines of pieces with their places from the left margin. Lines end at new lines of the text, and before the word
    that does not fit; a word longer than a line is broken between tokens.
    """
    line: list[tuple[float, _Piece]] = []
    x = 0.0
    for word in _words(boxes):
        fits_a_line = _width(word) <= ROOM
        for number, piece in enumerate(word):
            needed = _width(word) if fits_a_line and number == 0 else piece.width
            if line and x + piece.blank * SPACE + needed > ROOM:
                yield line
                line, x = [], 0.0
            x += piece.blank * SPACE if line else 0.0
            line.append((x, piece))
            x += piece.width + 1
            if piece.ends_line:
                yield line
                line, x = [], 0.0
    if line:
        yield line


def _width(word: Sequence[_Piece]) -> float:
    return sum(piece.width + 1 for piece in word)


def _words(boxes: Sequence[Box]) -> Iterator[list[_Piece]]:
    """Pieces that belong together on a line: up to the next space or new line."""
    word: list[_Piece] = []
    for box in boxes:
        for piece, ends_line in _pieces(box):
            text = piece.lstrip(" ") or piece
            made = _Piece(text, len(piece) - len(text), box, ends_line)
            if word and (made.blank or word[-1].ends_line):
                yield word
                word = []
            word.append(made)
    if word:
        yield word


def _pieces(box: Box) -> Iterator[tuple[str, bool]]:
    """The text of a box cut after each new line, which is shown as ⏎, and into pieces no wider than a line."""
    lines = box.text.replace("\r\n", "\n").split("\n")
    for number, line in enumerate(lines):
        more = number < len(lines) - 1
        parts = list(_wrapped(visible(line) + ("⏎" if more else ""), break_words=False))
        for index, part in enumerate(parts):
            yield part, more and index == len(parts) - 1


def _box(x: float, y: float, piece: _Piece, color: str) -> Iterator[str]:
    if piece.box.covered and piece.text:
        yield (
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{piece.width:.1f}" height="{BOX}" rx="3" fill="{color}"'
            f' fill-opacity="{shade(piece.box.relative):.2f}"/>'
        )
    yield _text(piece.text.replace(" ", "\u00a0"), x + PADDING, y + 14.5, INK)


def _text(line: str, x: float, y: float, color: str) -> str:
    """One line in typewriter type, stretched to its cells."""
    if not line.strip("\u00a0 "):
        return ""
    return (
        f'<text class="m" x="{x:.1f}" y="{y:.1f}" textLength="{cells(line) * CELL:.1f}"'
        f' lengthAdjust="spacingAndGlyphs" fill="{color}">{escape(line)}</text>'
    )


def _label(text: str, x: float, y: float, size: int, color: str, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text class="s" x="{x:.1f}" y="{y:.1f}" font-size="{size}"{weight} fill="{color}">{escape(text)}</text>'


def _legend(y: float) -> Iterator[str]:
    """Shades of both colours by multiples of the uniform weight, at the right of the title."""
    step, left = 34, WIDTH - MARGIN - 34 * len(TICKS)
    yield (
        f'<text class="s" x="{left - 8}" y="{y:.1f}" font-size="11" text-anchor="end" fill="{MUTED}">'
        "weight × tokens (uniform = 1)</text>"
    )
    for index, tick in enumerate(TICKS):
        x = left + index * step
        for row, color in enumerate(COLORS.values()):
            yield (
                f'<rect x="{x}" y="{y - 16 + row * 7:.1f}" width="{step}" height="7" fill="{color}"'
                f' fill-opacity="{shade(tick):.2f}"/>'
            )
        more = "+" if tick == DARKEST else ""
        yield (
            f'<text class="s" x="{x + step / 2:.1f}" y="{y + 10:.1f}" font-size="10" text-anchor="middle"'
            f' fill="{MUTED}">{tick:g}{more}</text>'
        )


def _wrapped(text: str, break_words: bool = True) -> Iterator[str]:
    """Lines of at most COLUMNS cells; broken at spaces where there are some, new lines kept."""
    for line in text.split("\n") if break_words else [text]:
        shown = visible(line) if break_words else line
        current, width = "", 0
        for character in shown:
            step = cells(character)
            if width + step > COLUMNS - 1:
                head, space, tail = current.rpartition(" ") if break_words else ("", "", "")
                yield head if space and head else current
                current = tail if space and head else ""
                width = cells(current)
            current += character
            width += step
        yield current


def _document(parts: Sequence[str], height: int) -> str:
    body = "\n".join(part for part in parts if part)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">\n'
        f"<style>.m{{font:{TEXT_SIZE}px {_MONO};white-space:pre}}.s{{font-family:{_SANS}}}</style>\n"
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8" fill="#ffffff" stroke="#d0d7de"/>\n'
        f"{body}\n</svg>\n"
    )

"""Characters as they are drawn: nothing invisible, nothing that turns or breaks the text around it, and how wide."""

import unicodedata

INVISIBLE = "\ufffd"
_JOINERS = {"\u200c", "\u200d"}  # part of joined emoji and of several scripts
_NARROW_ZERO = {"Mn", "Me", "Cf"}


def visible(text: str) -> str:
    """Text with a tab as →, and � for control characters, surrogates, and signs that change the direction of text.

    What it returns is valid in XML 1.0. New lines are replaced too: give it single lines, or replace them before.
    """
    return "".join(_visible(character) for character in text)


def cells(text: str) -> int:
    """Columns of a typewriter that a text takes: 2 for wide East Asian characters and emoji, 0 for combining marks.

    Characters joined to the one before (emoji families, skin tones) count once.
    """
    width, joined = 0, False
    for character in text:
        if joined or unicodedata.category(character) in _NARROW_ZERO or "\U0001f3fb" <= character <= "\U0001f3ff":
            joined = character == "\u200d"
            continue
        width += 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
    return width


def _visible(character: str) -> str:
    if character == "\t":
        return "→"
    category = unicodedata.category(character)
    if category in ("Cc", "Cs", "Zl", "Zp") or ord(character) & 0xFFFE == 0xFFFE:
        return INVISIBLE
    if category == "Cf" and character not in _JOINERS and not _is_tag(character):
        return INVISIBLE
    return character


def _is_tag(character: str) -> bool:
    """Tag characters spell the flags of regions after a black flag."""
    return "\U000e0020" <= character <= "\U000e007f"

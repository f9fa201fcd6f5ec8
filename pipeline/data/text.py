"""What counts as empty, and as text at all."""

import unicodedata

_UNSEEN = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf"})


def is_empty(text: str) -> bool:
    """No character that a reader could see: only white space, controls and format characters.

    These are the Unicode categories Z*, Cc and Cf: U+200B (zero width space) or a lone byte order mark, which
    `str.strip` leaves in place, is as empty as a space. Unassigned and private characters count as seen, because which
    ones are unassigned depends on the version of Python.
    """
    return all(unicodedata.category(character) in _UNSEEN for character in text)


def is_unicode(text: str) -> bool:
    """The text can be stored as UTF-8: it holds no unpaired surrogate, as JSON's `\\ud83d` alone would be."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True

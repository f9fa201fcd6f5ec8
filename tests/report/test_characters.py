"""What is drawn of a character, and how wide it is."""

from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.characters import INVISIBLE, cells, visible


@pytest.mark.parametrize(
    "character", ["\x00", "\x07", "\x1b", "\u202e", "\u2066", "\u200b", "\ufeff", "\ufffe", "\u2028"]
)
def test_invisible_and_direction_characters_are_shown(character: str) -> None:
    assert visible(f"a{character}b") == f"a{INVISIBLE}b"


@pytest.mark.parametrize(
    "text", ["plain", "é", "e\u0301", "👩‍👩‍👧", "日本語", "مرحبا", "🏴\U000e0067\U000e007f", "☃\ufe0f"]
)
def test_text_is_left_as_it_is(text: str) -> None:
    assert visible(text) == text


@given(st.text(st.characters(), max_size=20))
def test_what_is_shown_is_valid_xml(text: str) -> None:
    assert ElementTree.fromstring(f"<t>{escape(visible(text))}</t>").text == (visible(text) or None)


@pytest.mark.parametrize(
    ("text", "width"),
    [("abc", 3), ("日本", 4), ("e\u0301", 1), ("👍", 2), ("👍🏽", 2), ("👩‍👩‍👧", 2), ("", 0), ("ｱ", 1)],
)
def test_width_in_cells(text: str, width: int) -> None:
    assert cells(text) == width

"""Layout of the picture of a pair: nothing outside it, lines where the text has them, shades by weight."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.report.boxes import BoxedResponse, boxed
from pipeline.report.shade import DARKEST, OPACITY, shade
from pipeline.report.token_svg import MARGIN, WIDTH, draw_pair


def words(text: str, name: str = "chosen") -> BoxedResponse:
    spans = [found.span() for found in re.finditer(r" ?\w+| ?[^\w\s]|\s", text)]
    weights = np.arange(1, len(spans) + 1, dtype=np.float64)
    return boxed(name, text, np.array(spans).reshape(-1, 2), weights / weights.sum())


def elements(picture: str, tag: str) -> list[dict[str, str]]:
    return [
        dict(found.attrib, text=found.text or "")
        for found in ElementTree.fromstring(picture).iter()
        if found.tag.endswith(tag)
    ]


@settings(max_examples=30)
@given(st.text(st.characters(), max_size=300), st.text(st.characters(), max_size=50))
def test_every_box_lies_within_the_picture(text: str, prompt: str) -> None:
    picture = draw_pair("title", prompt, [words(text), words(text[::-1], "rejected")], 100)
    height = float(ElementTree.fromstring(picture).attrib["height"])
    for box in elements(picture, "rect"):
        assert float(box["x"]) >= 0
        assert float(box["x"]) + float(box["width"]) <= WIDTH - MARGIN + 0.2 or float(box["x"]) == 0.5
        assert float(box["y"]) + float(box["height"]) <= height


def test_boxes_of_a_line_do_not_overlap() -> None:
    picture = draw_pair("title", "prompt", [words("many words to wrap, and more of them. " * 12)], 1000)
    lines: dict[str, list[tuple[float, float]]] = {}
    for box in elements(picture, "rect"):
        if box.get("rx") == "3":
            lines.setdefault(box["y"], []).append((float(box["x"]), float(box["x"]) + float(box["width"])))
    assert len(lines) > 4
    for boxes in lines.values():
        assert all(left[1] <= right[0] for left, right in pairwise(boxes))


def test_a_word_stays_with_its_punctuation_and_new_lines_end_lines() -> None:
    picture = draw_pair("title", "prompt", [words("word, " * 60 + "\nend")], 1000)
    rows: dict[str, list[str]] = {}
    for text in elements(picture, "text"):
        if text.get("class") == "m":
            rows.setdefault(text["y"], []).append(text["text"])
    assert all(row[0] != "," for row in rows.values())
    *_, before, last = rows.values()
    assert before[-1] == "⏎"
    assert last == ["end"]


def test_a_token_longer_than_a_line_is_cut_into_lines() -> None:
    picture = draw_pair("title", "prompt", [words("x" * 500)], 10)
    assert "".join(text["text"] for text in elements(picture, "text") if text["text"].startswith("xxx")) == "x" * 500


def test_what_is_not_shown_is_stated() -> None:
    picture = draw_pair("title", "prompt", [words("a b c d e f g h")], 5)
    assert "8 tokens, the first 5 shown" in picture


@pytest.mark.parametrize(
    ("relative", "expected"), [(0.0, 0.0), (DARKEST / 4, OPACITY / 2), (DARKEST, OPACITY), (99, OPACITY)]
)
def test_shades(relative: float, expected: float) -> None:
    assert shade(relative) == pytest.approx(expected)

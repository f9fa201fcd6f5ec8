"""Markdown cells that any text fits into, and numbers as they are printed."""

from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pipeline.report.characters import visible
from pipeline.report.markdown import code, escaped, table
from pipeline.report.numbers import decimal, percent, significant, size


@given(st.text(st.characters(), max_size=30))
def test_a_cell_shows_its_text_and_nothing_else(text: str) -> None:
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(table(["head"], [[f"x{escaped(text)}x"]]))
    cell = html.partition('<td style="text-align:left">')[2].partition("</td>")[0]
    lines = text.replace("\r\n", "\n").split("\n")
    assert [unescape(line) for line in cell.split("<br>")] == f"x{chr(10).join(map(visible, lines))}x".split("\n")


def test_code_shows_spaces_at_its_ends_and_new_lines() -> None:
    assert code(" Yes") == "<code>␣Yes</code>"
    assert code("  ") == "<code>␣␣</code>"
    assert code("\n") == "<code>⏎</code>"
    assert code("|`") == "<code>&#124;&#96;</code>"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (significant(0.123456), "0.123"),
        (significant(-2.5e-7), "−2.50 × 10⁻⁷"),
        (significant(0.0), "0"),
        (significant(0.64), "0.640"),
        (significant(640.2), "640"),
        (significant(12345.0), "1.23 × 10⁴"),
        (decimal(-0.0001), "0.000"),
        (decimal(-1234.5, 1), "−1,234.5"),
        (percent(0.625), "62.5%"),
        (percent(-0.5, 0), "−50%"),
        (size(900), "900 B"),
        (size(1536), "1.5 KiB"),
        (size(300 * 2**20), "300 MiB"),
        (size(5000 * 2**30), "5,000 GiB"),
    ],
)
def test_numbers(shown: str, expected: str) -> None:
    assert shown == expected

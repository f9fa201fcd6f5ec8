"""The whole report on a run made by hand, whose texts try to break out of every format."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from pipeline.config.report import ReportParams
from pipeline.errors import ShardError
from pipeline.report.page import build_page
from tests.report.conftest import PARAMS

WITH_TEXT = ReportParams(include_text=True, examples=3)
MakeRun = Callable[..., Path]


Report = tuple[str, dict[str, str]]
"""The page, and the text of every other file by its name."""


def report(root: Path, params: ReportParams = WITH_TEXT, name: str = "figures") -> Report:
    figures = root / "reports" / name
    figures.mkdir(parents=True)
    page = build_page(root, figures, params, PARAMS)
    return page, {path.name: path.read_text(encoding="utf-8") for path in sorted(figures.iterdir())}


@pytest.fixture(scope="module")
def run(make_run: MakeRun) -> Path:
    return make_run()


@pytest.fixture(scope="module")
def made(run: Path) -> Report:
    return report(run)


def test_two_runs_write_the_same_bytes(run: Path, made: Report) -> None:
    assert report(run, name="again") == made


def test_the_page_links_to_every_figure_and_to_nothing_else(made: Report) -> None:
    page, files = made
    html = _rendered(page)
    linked = {name.removeprefix("figures/") for name in re.findall(r'(?:src|href)="([^"#]+)"', html)}
    assert linked == set(files)
    assert set(files) == {
        *("training.svg", "weights.svg", "evaluation.svg", "tokens.html"),
        *(f"tokens-{number}.svg" for number in (1, 2, 3)),
    }


def test_text_stays_text_in_markdown(made: Report) -> None:
    page, _ = made
    html = _rendered(page)
    assert "<script" not in html
    assert "<a href" in html  # the contents
    assert not re.search(r"<(a|img)[^>]+(evil|www)", html)
    assert "<strong>" not in html
    assert "<h1>no heading" not in html
    assert html.count("<h1>") == 1
    # A cell that breaks out of its row would leave a table of another width.
    for table in re.findall(r"<table>.*?</table>", html, flags=re.DOTALL):
        widths = {len(re.findall(r"<t[hd]", row)) for row in re.findall(r"<tr>.*?</tr>", table, flags=re.DOTALL)}
        assert len(widths) == 1
    assert "# b SECRET &lt;script&gt;alert" in html


def test_pictures_are_well_formed_and_draw_text_only(made: Report) -> None:
    _, files = made
    for name, text in files.items():
        if name.startswith("tokens-"):
            tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(text).iter()}
            assert tags == {"svg", "style", "rect", "text"}
            assert "\u202e" not in text
            assert "alert" in text


def test_nothing_is_loaded_from_anywhere(made: Report) -> None:
    _, files = made
    for text in files.values():
        for found in re.findall(r"""(?:src|href|url|@import)\s*[=(]\s*["']?([^"')\s>]+)""", text):
            assert found.startswith("#"), found
    parser = _Tags()
    parser.feed(files["tokens.html"])
    assert parser.tags.isdisjoint({"script", "a", "img", "link", "iframe", "b"})
    assert "default-src 'none'" in files["tokens.html"]


def test_without_include_text_nothing_of_a_pair_is_shown(make_run: MakeRun) -> None:
    page, files = report(make_run(), ReportParams(include_text=False))
    assert "report.include_text: true" in page
    assert set(files) == {"training.svg", "weights.svg", "evaluation.svg"}
    before_answers, answers = page.split("## Answers before and after")
    after_answers = answers.split("## Training")[1]
    for text in (before_answers, after_answers, *files.values()):
        assert "SECRET" not in text
        assert "Chosen 1" not in text


def test_the_page_names_no_machine(run: Path, made: Report) -> None:
    page, files = made
    for text in (page, *files.values()):
        assert str(run) not in text
        assert "/home/somebody" not in text
        assert not re.search(r"20\d\d-\d\d-\d\d", text)
    assert "…/tiny" in page
    assert "cuda" not in page


def test_without_test_pairs_the_page_says_so_and_shows_train_pairs(make_run: MakeRun) -> None:
    page, files = report(make_run(test_pairs=0))
    assert "There are no test pairs" in page
    assert "(train)" in files["tokens-1.svg"]
    assert "evaluation.svg" not in files


def test_numbers_of_the_run_are_on_the_page(made: Report) -> None:
    page, _ = made
    assert "| chosen | before | 0.0400 | 0.2400 | 82.4 | 13.70% | 8.00% | 3.00% |" in page
    assert "| `prepare` | train | empty&#95;response | 1 |" in page
    assert "This judge mostly answers A" in page
    assert "1,234" in page


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ({}, "from layer 29, mean over all heads (counted from 0), in"),
        ({"heads": [3]}, "from layer 29, mean over heads 3 (counted from 0), in"),
        ({"heads": [0, 2, 5]}, "from layer 29, mean over heads 0, 2, 5 (counted from 0), in"),
        ({"heads": list(range(32))}, "from layer 29, mean over heads 0 to 31 (counted from 0), in"),
        ({"source": "rollout", "layer": -1}, "from attention rollout through all layers, in"),
    ],
)
def test_the_rows_behind_the_weights_are_named(make_run: MakeRun, rows: dict[str, object], text: str) -> None:
    root = make_run()
    path = root / "reports" / "metrics" / "postprocess.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | rows))
    assert f"Weights of the train split, {text} judge-context tokens" in report(root)[0]


def test_without_verdicts_the_page_says_so(make_run: MakeRun) -> None:
    root = make_run()
    (root / "reports" / "metrics" / "extract.json").write_text('{"train": {}, "validation": {}, "test": {}}')
    assert "No verdict was read: `extract.verdicts` is off" in report(root)[0]


@pytest.mark.parametrize("missing", ["reports/metrics/train.json", "reports/evaluate/answers.json"])
def test_a_missing_file_is_named(make_run: MakeRun, missing: str) -> None:
    root = make_run()
    (root / missing).unlink()
    with pytest.raises(ShardError, match=missing):
        report(root)


def test_a_torn_curve_is_named(make_run: MakeRun) -> None:
    root = make_run()
    curve = root / "reports" / "train" / "plots" / "metrics" / "train" / "loss.tsv"
    curve.write_text("step\tloss\n1\n", encoding="utf-8")
    with pytest.raises(ShardError, match=r"loss\.tsv"):
        report(root)


def _rendered(page: str) -> str:
    """The page as HTML: CommonMark with tables, and with raw HTML let through, as GitHub does."""
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(page)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

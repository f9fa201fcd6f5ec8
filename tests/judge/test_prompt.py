"""The prompt file: that of the paper, edited ones, and ones that cannot be used."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.judge.prompt import PLACEHOLDERS, PromptTemplate, load_prompt, split_prompt


def test_it_is_the_paper_s_figure_6_word_for_word(root: Path, prompt: PromptTemplate) -> None:
    paper = root.parent / "shared" / "seeds" / "attentionpo-paper.txt"
    if not paper.is_file():
        pytest.skip("../shared/seeds is not there: the prompt is not compared with the paper")
    figure = paper.read_text(encoding="utf-8").split("\nPairwise Judge Prompt\n\n")[1].split("\n\nFigure 6")[0]
    assert prompt.fill({name: f"{{{name}}}" for name in PLACEHOLDERS}).text == figure


def test_it_begins_and_ends_as_the_paper_s(prompt: PromptTemplate) -> None:
    assert prompt.names == PLACEHOLDERS
    assert prompt.literals[0].startswith("Please act as an impartial judge")
    assert prompt.literals[0].endswith("2. Answer B is better: B\n\n<|The Start of User Prompt|>\n")
    assert prompt.literals[2] == "\n<|The End of Answer A|>\n\n<|The Start of Answer B|>\n"
    assert prompt.literals[3].endswith("\n\nYour choice:")


TEXTS = st.text() | st.sampled_from([f"{{{name}}}" for name in PLACEHOLDERS])


@given(values=st.fixed_dictionaries(dict.fromkeys(PLACEHOLDERS, TEXTS)), order=st.permutations(PLACEHOLDERS))
def test_a_value_is_never_read_as_a_placeholder(values: dict[str, str], order: list[str]) -> None:
    template = split_prompt("{x} " + " | ".join(f"{{{name}}}" for name in order) + " {}", "prompt.txt")
    filled = template.fill(values)
    assert filled.text == "{x} " + " | ".join(values[name] for name in order) + " {}"
    assert {name: filled.text[slice(*span)] for name, span in filled.spans.items()} == values


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_what_editors_add_is_no_part_of_the_prompt(tmp_path: Path, ending: str, mark: str) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes(f"{mark}Q: {{question}}\r\nB: {{answer_b}}\nA: {{answer_a}}\nYour choice:{ending}".encode())
    filled = load_prompt(file).fill({"question": "why", "answer_a": "yes", "answer_b": "no"})
    assert filled.text == "Q: why\nB: no\nA: yes\nYour choice:"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "{question} exactly once, not 0 times"),
        ("{question} {answer_a} {answer_A}", "{answer_b} exactly once, not 0 times"),
        ("{question} {answer_a} {answer_b} {answer_a}", "{answer_a} exactly once, not 2 times"),
        ("{question} {answer_b}{answer_a}", "put text between {answer_b} and {answer_a}"),
    ],
)
def test_a_prompt_that_cannot_be_filled_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.txt"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        load_prompt(file)
    assert str(error.value).startswith(f"{file}: ")


def test_a_missing_file_and_another_encoding_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.txt: no such file"):
        load_prompt(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes("{question} {answer_a} {answer_b} é".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.txt: not UTF-8"):
        load_prompt(tmp_path / "latin.txt")

"""Rows of prompts are checked before a model is loaded, and no error holds their text."""

import json
from pathlib import Path

import pytest

from pipeline.errors import DataError
from recipes.logic_rl import puzzles
from recipes.prompts import prompts_of, read_rows
from recipes.rewards.registry import REWARDS

TURNS = [{"role": "user", "content": "secret"}]


def write(folder: Path, *rows: object) -> Path:
    file = folder / "prompts.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return file


def read(file: Path, reward: str = "format") -> list[dict[str, object]]:
    return prompts_of(read_rows(file), file, REWARDS[reward])


def test_prompt_and_the_rewards_column_are_kept(tmp_path: Path) -> None:
    file = write(tmp_path, {"prompt": "a\u2028b", "answer": "5", "other": [1]}, "", {"prompt": "c", "answer": "6"})
    assert read(file, "exact") == [{"prompt": "a\u2028b", "answer": "5"}, {"prompt": "c", "answer": "6"}]
    assert read(file) == [{"prompt": "a\u2028b"}, {"prompt": "c"}]
    assert read(write(tmp_path, {"prompt": TURNS})) == [{"prompt": TURNS}]


@pytest.mark.parametrize(
    ("rows", "reward", "message"),
    [
        ([], "format", "holds no row"),
        (["{secret"], "format", "line 1 is not a JSON object"),
        (["[" * 10**5], "format", "line 1 is not a JSON object"),
        (["[1]"], "format", "line 1 is not a JSON object"),
        ([{"prompt": "secret"}, "", {"text": "secret"}], "format", "line 3: `prompt` is neither"),
        ([{"prompt": " "}], "format", "line 1: `prompt` is neither"),
        ([{"prompt": []}], "format", "line 1: `prompt` is neither"),
        ([{"prompt": [{"role": "user"}]}], "format", "line 1: `prompt` is neither"),
        ([{"prompt": "secret"}, {"prompt": TURNS}], "format", "lines 1 and 2: one prompt is a text, the other"),
        ([{"prompt": "secret"}], "exact", "line 1: column 'answer'"),
        ([{"prompt": "secret", "answer": 5}], "exact", "line 1: column 'answer'"),
        ([{"prompt": "secret", "answer": " "}], "exact", "line 1: column 'answer'"),
        ([{"prompt": "secret", "solution_text_format": "secret"}], "knights", "line 1: column 'solution_text_format'"),
    ],
)
def test_bad_rows_are_refused_by_file_and_line(tmp_path: Path, rows: list[object], reward: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as refused:
        read(write(tmp_path, *rows), reward)
    assert "prompts.jsonl" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--prompts .*absent.jsonl: cannot be read: No such file"):
        read_rows(tmp_path / "absent.jsonl")


def test_puzzles(tmp_path: Path) -> None:
    row = {"quiz": "Zoey says …", "solution_text_format": "(1) Zoey is a knight", "names": ["Zoey"]}
    (found,) = puzzles(write(tmp_path, row))
    assert found.keys() == {"prompt", "solution_text_format"}
    assert found["prompt"][1] == {"role": "user", "content": "Zoey says …"}
    with pytest.raises(DataError, match="line 2: `quiz` is missing"):
        puzzles(write(tmp_path, row, {**row, "quiz": ""}))
    with pytest.raises(DataError, match="line 2: column 'solution_text_format'"):
        puzzles(write(tmp_path, row, {**row, "solution_text_format": "Zoey"}))

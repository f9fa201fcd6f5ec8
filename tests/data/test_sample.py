"""The committed sample: schema, ids, sizes, variety, and that its README counts it rightly."""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "data" / "sample"
SPLITS = ("train", "test")
COLUMNS = [
    "prompt",
    "prompt_id",
    "chosen",
    "rejected",
    "messages",
    "score_chosen",
    "score_rejected",
    "why",
    "category",
]
ROLES = {"system", "user", "assistant"}

# Latin-script languages are told by a letter or word that the others in the sample do not use.
LANGUAGE_MARKS = {
    "Chinese or Japanese": "[\u4e00-\u9fff]",
    "Japanese": "[\u3040-\u30ff]",
    "Korean": "[\uac00-\ud7a3]",
    "Arabic": "[\u0600-\u06ff]",
    "Hindi": "[\u0900-\u097f]",
    "Russian": "[\u0400-\u04ff]",
    "Spanish": "\u00bf",
    "Portuguese": "\u00e3o",
    "German": r"\b(und|nicht|wie)\b",
    "French": r"\bvous\b",
}


def read(split: str) -> list[dict[str, Any]]:
    # bytes, not text: universal newlines must have no say in where a row ends
    lines = (FOLDER / f"{split}.jsonl").read_bytes().split(b"\n")
    assert lines[-1] == b"", "the last line must end with a line break"
    return [json.loads(line.decode("utf-8")) for line in lines[:-1]]


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict[str, Any]]]:
    return {split: read(split) for split in SPLITS}


def answers(row: dict[str, Any]) -> tuple[str, str]:
    return row["chosen"][-1]["content"], row["rejected"][-1]["content"]


def context(row: dict[str, Any]) -> list[dict[str, str]]:
    return row["chosen"][:-1]


@pytest.mark.parametrize("split", SPLITS)
def test_schema(rows: dict[str, list[dict[str, Any]]], split: str) -> None:
    for number, row in enumerate(rows[split]):
        assert list(row) == COLUMNS, number
        assert row["messages"] == row["chosen"], number
        for side in ("chosen", "rejected"):
            for message in row[side]:
                assert list(message) == ["content", "role"], number
                assert message["role"] in ROLES, number
                assert message["content"].strip(), number
        assert isinstance(row["score_chosen"], float), number
        assert isinstance(row["score_rejected"], float), number
        assert 1 <= row["score_rejected"] < row["score_chosen"] <= 10, number
        assert row["why"].strip(), number


@pytest.mark.parametrize("split", SPLITS)
def test_conversations(rows: dict[str, list[dict[str, Any]]], split: str) -> None:
    for number, row in enumerate(rows[split]):
        assert row["rejected"][:-1] == context(row), number
        roles = [message["role"] for message in row["chosen"]]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2), number
        assert row["rejected"][-1]["role"] == "assistant", number
        first_user = next(m["content"] for m in row["chosen"] if m["role"] == "user")
        assert row["prompt"] == first_user, number
        assert row["prompt_id"] == hashlib.sha256(first_user.encode("utf-8")).hexdigest(), number
        chosen, rejected = answers(row)
        assert chosen.strip() != rejected.strip(), number


def test_sizes_and_unique_prompts(rows: dict[str, list[dict[str, Any]]]) -> None:
    assert len(rows["train"]) >= 96
    assert len(rows["test"]) >= 32
    prompts = [" ".join(row["prompt"].split()).casefold() for split in SPLITS for row in rows[split]]
    assert [prompt for prompt, count in Counter(prompts).items() if count > 1] == []


def test_turns(rows: dict[str, list[dict[str, Any]]]) -> None:
    every = rows["train"] + rows["test"]
    assert sum(3 <= len(context(row)) <= 5 for row in rows["train"]) >= 10
    assert sum(3 <= len(context(row)) <= 5 for row in rows["test"]) >= 3
    assert sum(row["chosen"][0]["role"] == "system" for row in every) >= 8


def test_languages(rows: dict[str, list[dict[str, Any]]]) -> None:
    texts = [answers(row)[0] for row in rows["train"]]
    missing = [name for name, mark in LANGUAGE_MARKS.items() if not any(re.search(mark, t) for t in texts)]
    prompts = [row["prompt"] for row in rows["train"]]
    missing = [name for name in missing if not any(re.search(LANGUAGE_MARKS[name], p) for p in prompts)]
    assert missing == []


@pytest.mark.parametrize("split", SPLITS)
def test_lengths(rows: dict[str, list[dict[str, Any]]], split: str) -> None:
    pairs = [answers(row) for row in rows[split]]
    longer = sum(len(chosen) > len(rejected) for chosen, rejected in pairs) / len(pairs)
    assert 0.4 <= longer <= 0.6, "a judge that always takes the longer answer must not look good"
    assert any(max(len(chosen), len(rejected)) <= 6 for chosen, rejected in pairs)
    long = sum(min(len(chosen.split()), len(rejected.split())) >= 390 for chosen, rejected in pairs)
    assert long >= (4 if split == "train" else 2)


def test_awkward_text(rows: dict[str, list[dict[str, Any]]]) -> None:
    text = [part for row in rows["train"] for part in (row["prompt"], *answers(row))]
    marks = ("<|im_end|>", "{answer_a}", "```", "\r\n", "\\frac", "|---|", "\u200d", "\U0001f1e8\U0001f1ed")
    assert [mark for mark in marks if not any(mark in part for part in text)] == []
    assert any(part.endswith("\n") for part in text)


def test_readme_counts(rows: dict[str, list[dict[str, Any]]]) -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \|", readme, re.M)
    table = {name: (int(train), int(test)) for name, train, test in cells}
    counts = [Counter(row["category"] for row in rows[split]) for split in SPLITS]
    assert table == {name: (counts[0][name], counts[1][name]) for name in counts[0] | counts[1]}
    assert f"{len(rows['train'])} + {len(rows['test'])} preference pairs" in readme

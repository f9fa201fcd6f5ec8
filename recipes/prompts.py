"""Prompts for online RL from a JSON-lines file. Rows are checked before a model is loaded; no error holds their text"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from pipeline.errors import DataError, ModelError
from recipes.rewards.registry import Reward

Row = dict[str, Any]


def read_rows(file: Path) -> dict[int, Row]:
    """The file's JSON objects by line number, from 1; empty lines are passed over.

    Raises DataError where the file cannot be read, a line is no JSON object, or there is none.
    """
    rows: dict[int, Row] = {}
    try:
        # Lines of bytes end at \n alone.
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"--prompts {file}: cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise DataError(f"{file}: line {number} is not a JSON object; write one per line")
        rows[number] = row
    if not rows:
        raise DataError(f"{file}: holds no row")
    return rows


def prompts_of(rows: Mapping[int, Row], file: Path, reward: Reward) -> list[Row]:
    """`prompt` and the reward's column of every row; other columns are left out.

    A prompt is a text that is not empty, or a list of turns with `role` and `content`, the same kind in all rows.
    Raises DataError naming file and line.
    """
    found = []
    kinds: dict[type, int] = {}
    for number, row in rows.items():
        where = f"{file}: line {number}"
        prompt = row.get("prompt")
        if not _is_prompt(prompt):
            raise DataError(
                f"{where}: `prompt` is neither a text nor a list of turns with `role` and `content`; correct the row"
            )
        kinds.setdefault(type(prompt), number)
        kept = {"prompt": prompt}
        if reward.column is not None:
            value = row.get(reward.column)
            if not isinstance(value, str) or reward.read(value) is None:
                raise DataError(
                    f"{where}: column {reward.column!r}, which the reward compares responses with, is missing or "
                    "cannot be read as such; correct the row or choose another --reward"
                )
            kept[reward.column] = value
        found.append(kept)
    if len(kinds) > 1:
        raise DataError(
            f"{file}: lines {' and '.join(map(str, kinds.values()))}: one prompt is a text, the other a list of turns; "
            "write all in one way"
        )
    return found


def without_long(rows: list[Row], tokenizer: Any, most: int) -> list[Row]:
    """The rows whose prompt has at most so many tokens, as TRL tokenizes it.

    Raises DataError where none is left, ModelError where turns need a chat template that the tokenizer lacks.
    """
    kept = [row for row in rows if len(_ids(row["prompt"], tokenizer)) <= most]
    if not kept:
        raise DataError(f"all {len(rows)} prompts are longer than {most} tokens; raise --max-prompt-tokens")
    return kept


def _ids(prompt: str | list[dict[str, str]], tokenizer: Any) -> list[int]:
    if isinstance(prompt, str):
        return tokenizer(text=prompt)["input_ids"]
    if tokenizer.chat_template is None:
        raise ModelError(
            "The model's tokenizer has no chat template, and prompts are lists of turns; write them as plain texts, or "
            "take a chat model"
        )
    try:
        filled = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=True)
    except TemplateError as error:
        raise ModelError(f"The model's chat template refuses a prompt's turns: {error}; write other turns") from error
    return filled["input_ids"]


def _is_prompt(prompt: Any) -> bool:
    if isinstance(prompt, str):
        return bool(prompt.strip())
    return isinstance(prompt, list) and bool(prompt) and all(_is_turn(turn) for turn in prompt)


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)

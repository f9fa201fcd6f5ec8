"""Knights and Knaves: who of a puzzle's people is a knight, from lines such as `(1) Zoey is a knight`."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from pipeline.errors import DataError
from recipes.rewards.answer import score_answer, words
from recipes.rewards.text import Text, response_texts

Roles = dict[str, str]
"""`knight` or `knave` by name; names in small letters."""

_LINE = re.compile(r"(?:\(?\d++[.)] ?)?(?P<name>[^\W\d_].*?) is a (?P<role>knight|knave)\.?")


def read_solution(text: str) -> Roles | None:
    """The roles of a solution with one person a line; None where a line is anything else, or names someone twice."""
    roles: Roles = {}
    for line in map(_plain, text.splitlines()):
        if not line:
            continue
        found = _LINE.fullmatch(line)
        if found is None or found["name"] in roles or _mentions(line) != 1:
            return None
        roles[found["name"]] = found["role"]
    return roles or None


def read_answer(text: str, names: Sequence[str]) -> Roles | None:
    """The roles that a model's answer gives to `names`, in small letters; None where it is not plain what it says.

    As in the official code: `NAME is a knight` or `NAME is a knave` for each name, in any order, letter case and white
    space, and neither of the two words anywhere else. So nobody is named twice, left out, or not of the puzzle. Other
    text may stand around. Time grows with the length of the text alone.
    """
    plain = _plain(text)
    if _mentions(plain) != len(names):
        return None
    anyone = "|".join(re.escape(name) for name in names)
    roles = dict(re.findall(rf"(?<!\w)({anyone}) is a (knight|knave)(?!\w)", plain))
    return roles if len(roles) == len(names) else None


def knights_reward(
    prompts: Sequence[Text], completions: Sequence[Text], solution_text_format: Sequence[str], **columns: Any
) -> list[float]:
    """+2 where all roles are those of column `solution_text_format` of the Knights-and-Knaves data set, -1.5 where
    one is not, -2 where the answer cannot be read or its tags are broken.

    Raises DataError where a solution cannot be read.
    """
    scores: list[float] = []
    for text, solution in zip(response_texts(prompts, completions), solution_text_format, strict=True):
        right = read_solution(solution)
        if right is None:
            raise DataError(
                f"completion {len(scores)} of the batch: its prompt's solution_text_format is not one line "
                "`(1) NAME is a knight` (or knave) per person; correct the row"
            )
        scores.append(score_answer(text, right, partial(read_answer, names=list(right))))
    return scores


def _plain(text: str) -> str:
    return words(text.casefold()) or ""


def _mentions(plain: str) -> int:
    return plain.count("knight") + plain.count("knave")

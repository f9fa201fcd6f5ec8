"""What the judge wrote, read as the list that Figure 7 asks for; anything else is refused.

    list  = "[" item ("," item)* "]"
    item  = "{" part "," score "}" | "[" part "," score "]" | "{" part ":" score "}"
    part  = a JSON string, not empty        score = 1 | 2 | 3 | 4 | 5

The first kind of item is the prompt's own, the others are what JSON has for it. White space is JSON's. Around the list
there may be white space, and one fence of Markdown.
"""

import json
import re
from typing import NamedTuple

REASONS = {
    "no_list": "the judge's answer holds no list",
    "text_around_list": "the judge's answer holds more than the list, or its code fence has no end",
    "unfinished_list": "the judge's answer ends within the list, or was cut at `max_new_tokens` or the context's end",
    "empty_list": "the list holds no part",
    "not_a_list_of_pairs": "an item of the list is not a string with a score",
    "bad_string": "a part is not a JSON string: a line end or another control character in it, or an unknown escape",
    "empty_part": "a part is the empty string",
    "score_not_an_integer": "a score is not written as an integer",
    "score_out_of_range": "a score is an integer, but not 1 to 5",
}
"""Reason -> what it means."""


class Part(NamedTuple):
    """A piece of the response, as the judge wrote it, and its score, 1 to 5."""

    text: str
    score: int


class AnswerRefused(Exception):
    """Why an answer cannot be read: a reason of `REASONS`, and where; never the text."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


# Every pattern goes forward only: possessive or of single classes, so that no answer takes more than linear time.
_SPACE = re.compile(r"[ \t\n\r]*+")
_FENCE = re.compile(r"```[A-Za-z]*+[ \t]*+\r?\n")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]++|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*+')
_CUT_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?")
_NUMBER = re.compile(r"-?[0-9]++(?:\.[0-9]*+)?(?:[eE][+-]?[0-9]*+)?")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*+)")
_ENDS = {"{,": "}", "[,": "]", "{:": "}"}
"""Opening bracket and separator -> closing bracket."""


def parse_parts(answer: str) -> list[Part]:
    """The parts and their scores in the order written, at least one. Linear in the answer's length.

    Raises AnswerRefused for the first thing that is not as it should be.
    """
    reader = _Reader(answer)
    fence = reader.take(_FENCE)
    if not reader.at("["):
        raise AnswerRefused("text_around_list" if "[" in answer else "no_list", f"{len(answer)} characters")
    parts = reader.items()
    if fence:
        reader.expect_fence()
    if not reader.ended:
        raise reader.refusal("text_around_list")
    return parts


class _Reader:
    """A place in an answer. White space is passed after everything that is read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._parts = 0
        self._pass_space()

    @property
    def ended(self) -> bool:
        return self._at == len(self._text)

    def refusal(self, reason: str) -> AnswerRefused:
        """The end of the text is no list's fault but that it was left unfinished."""
        detail = f"after {self._parts} parts, at character {self._at} of {len(self._text)}"
        return AnswerRefused("unfinished_list" if self.ended else reason, detail)

    def at(self, character: str) -> bool:
        return self._text.startswith(character, self._at)

    def take(self, pattern: re.Pattern[str]) -> str:
        """What matches here; nothing is read where it is the empty string."""
        match = pattern.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        self._pass_space()
        return match.group()

    def items(self) -> list[Part]:
        self._step()
        if self.at("]"):
            raise self.refusal("empty_list")
        parts: list[Part] = []
        while True:
            parts.append(self._item())
            self._parts += 1
            separator = self._one_of(",]")
            if separator == "]":
                return parts

    def expect_fence(self) -> None:
        if not self.at("```"):
            raise AnswerRefused("text_around_list", f"no end of the code fence after {self._parts} parts")
        self._at += 3
        self._pass_space()

    def _item(self) -> Part:
        opening = self._one_of("{[")
        text = self._string()
        separator = self._one_of(",:" if opening == "{" else ",")
        score = self._score()
        self._one_of(_ENDS[opening + separator])
        return Part(text, score)

    def _string(self) -> str:
        start = self._at
        if not self.at('"'):
            raise self.refusal("not_a_list_of_pairs")
        match = _STRING.match(self._text, start)
        assert match is not None
        self._at = match.end()
        if not self.at('"'):
            if cut := _CUT_ESCAPE.fullmatch(self._text, self._at):
                self._at = cut.end()
            raise self.refusal("bad_string")
        self._step()
        text: str = json.loads(self._text[start : match.end() + 1])
        if not text:
            raise AnswerRefused("empty_part", f"part {self._parts + 1}")
        return text

    def _score(self) -> int:
        number = self.take(_NUMBER)
        # A number at the very end may have more digits to come.
        if not number or self.ended:
            raise self.refusal("score_not_an_integer")
        if not _INTEGER.fullmatch(number):
            raise AnswerRefused("score_not_an_integer", f"part {self._parts + 1}")
        if number not in {"1", "2", "3", "4", "5"}:
            raise AnswerRefused("score_out_of_range", f"part {self._parts + 1}")
        return int(number)

    def _one_of(self, characters: str) -> str:
        found = self._text[self._at : self._at + 1]
        if not found or found not in characters:
            raise self.refusal("not_a_list_of_pairs")
        self._step()
        return found

    def _step(self) -> None:
        self._at += 1
        self._pass_space()

    def _pass_space(self) -> None:
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._at = match.end()

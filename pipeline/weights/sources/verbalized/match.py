"""The judge's parts found in the response again, and a score for every token that they cover.

The prompt asks for a partition, part M right after part M-1, but judges leave out, repeat and change words:

- White space plays no part in finding. A part of white space alone scores nothing. White space of the response belongs
  to the character after it, at its end to the one before: a lost space costs no token.
- A part is taken where the one before ends. If it does not stand there, it is looked for further on, over no more than
  the share of the response that may stay without score; what is jumped over has no score. If it is not there either, it
  is left out, and the next one is looked for in its place. Nothing is ever looked for before the end of a found part.
- Letters must be the same: no change of case, quotes or Unicode form is forgiven.
- A token has the score of the part that covers most of its characters, the first one on a tie; white space counts only
  in tokens that hold nothing else. Tokens of no character (the end of turn) have no score and are not counted.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.weights.sources.verbalized.parse import Part

_NOBODY = -1


@dataclass(frozen=True, slots=True)
class Matched:
    """Scores of the T tokens of one response."""

    scores: NDArray[np.float32]
    """[T]; 1 to 5, and 0 for tokens that no part covers."""
    tokens: int
    """Tokens that a part covers."""
    countable: int
    """Tokens of at least one character."""
    missing: int
    """Parts that were not found."""

    def reaches(self, share: float) -> bool:
        """Whether at least this share of the tokens has a score; false where there is none to have one."""
        return self.countable > 0 and self.tokens / self.countable >= share

    def __str__(self) -> str:
        return f"{self.tokens} of {self.countable} tokens matched, {self.missing} parts not found"


def match_parts(text: str, offsets: NDArray[np.integer], parts: Sequence[Part], min_matched: float) -> Matched:
    """Scores of tokens with `offsets` [T, 2], half-open spans of characters of `text`, from parts of that text.

    `min_matched`: as in `verbalized.min_matched`; here it says how far a part may lie from where it should.
    """
    owners, missing = _owners(text, parts, 1 - min_matched)
    scores = np.zeros(len(offsets), dtype=np.float32)
    tokens = countable = 0
    for index, (start, end) in enumerate(offsets.tolist()):
        if start == end:
            continue
        countable += 1
        owner = _most(text[start:end], owners[start:end])
        if owner != _NOBODY:
            tokens += 1
            scores[index] = parts[owner].score
    return Matched(scores, tokens, countable, missing)


def _owners(text: str, parts: Sequence[Part], reach: float) -> tuple[list[int], int]:
    """For every character the number of its part, or _NOBODY; and how many parts were not found."""
    seen = [place for place, character in enumerate(text) if not character.isspace()]
    letters = "".join(text[place] for place in seen)
    of_letters = [_NOBODY] * len(letters)
    furthest = math.ceil(reach * len(letters))
    at = missing = 0
    for number, part in enumerate(parts):
        wanted = "".join(part.text.split())
        if not wanted:
            continue
        found = letters.find(wanted, at, at + furthest + len(wanted))
        if found < 0:
            missing += 1
            continue
        at = found + len(wanted)
        of_letters[found:at] = [number] * len(wanted)
    owners = [of_letters[-1] if of_letters else _NOBODY] * len(text)
    begin = 0
    for place, owner in zip(seen, of_letters, strict=True):
        owners[begin : place + 1] = [owner] * (place + 1 - begin)
        begin = place + 1
    return owners, missing


def _most(text: str, owners: Sequence[int]) -> int:
    """The part of most characters of a token, the first one on a tie."""
    counted = [owner for owner, character in zip(owners, text, strict=True) if not character.isspace()] or owners
    counts = Counter(owner for owner in counted if owner != _NOBODY)
    # The first of equal counts: a Counter keeps the order in which its keys came.
    return max(counts, key=counts.__getitem__) if counts else _NOBODY

"""The tokens of a response as boxes of text with a weight: what both pictures of a response are drawn from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Box:
    """Characters that one token covers, or several tokens that share a character.

    `relative` is the weight times the number of tokens of the response: 1 for a token of uniform weight. Of tokens that
    share a character (an emoji in bytes) it is their mean, so that shades compare; `weight` is their sum.
    """

    text: str
    weight: float = 0.0
    relative: float = 0.0
    tokens: tuple[int, int] = (0, 0)
    """Half-open range of token indices; empty for characters that no token covers."""

    @property
    def covered(self) -> bool:
        """Whether a token covers these characters."""
        return self.tokens[1] > self.tokens[0]


@dataclass(frozen=True)
class BoxedResponse:
    """One response: its boxes in the order of the text, and how many tokens it has in the judge's context."""

    name: str
    """`chosen` or `rejected`."""
    boxes: tuple[Box, ...]
    tokens: int
    characters_cut: int
    """Characters after the last token, which truncation took from the judge."""

    def first(self, tokens: int) -> "BoxedResponse":
        """The same response with only its first boxes, up to so many tokens."""
        kept = tuple(box for box in self.boxes if box.tokens[1] <= tokens) if self.tokens > tokens else self.boxes
        while kept and not kept[-1].covered and self.tokens > tokens:
            kept = kept[:-1]
        return BoxedResponse(self.name, kept, self.tokens, self.characters_cut)

    @property
    def shown(self) -> int:
        """Tokens in the boxes."""
        return sum(box.tokens[1] - box.tokens[0] for box in self.boxes)


def boxed(name: str, text: str, offsets: NDArray[np.integer], weights: NDArray[np.floating]) -> BoxedResponse:
    """Cut a response at the characters of its tokens; offsets[n, 2] are indices into `text`, weights[n] of sum 1.

    Characters between tokens get a box without a token. White space after the last token is not counted as cut.
    """
    boxes: list[Box] = []
    end = 0
    for first, last in _groups(offsets):
        begin, stop = int(offsets[first:last, 0].min()), int(offsets[first:last, 1].max())
        if begin > end:
            boxes.append(Box(text[end:begin], tokens=(first, first)))
        mass = float(weights[first:last].sum(dtype=np.float64))
        boxes.append(Box(text[begin:stop], mass, mass / (last - first) * len(weights), (first, last)))
        end = stop
    return BoxedResponse(name, tuple(boxes), len(weights), len(text[end:].rstrip()))


def _groups(offsets: NDArray[np.integer]) -> Sequence[tuple[int, int]]:
    """Half-open ranges of tokens that belong in one box: those that share characters, or cover none of their own."""
    groups: list[tuple[int, int]] = []
    end = 0
    for token, (begin, stop) in enumerate(offsets.tolist()):
        if groups and (begin < end or begin == stop):
            groups[-1] = (groups[-1][0], token + 1)
        else:
            groups.append((token, token + 1))
        end = max(end, stop)
    return groups

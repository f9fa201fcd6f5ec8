"""Answers that are a partition of the response by construction: the judge chooses where parts end, and their scores.

Not the paper's way, whose judge writes freely and loses the pairs of most of its answers (METHODS 2.3); small judges
write no list at all. Here the next token is chosen among those that go on with

    [{"part", score}, {"part", score}, …]

where the parts, one after the other, are the response: its next token, or the end of a part; then one of five scores.
The tokens of the parts are those of the response as one JSON string; a part has at least one of them, and ends neither
within a character nor within an escape. Where no room is left for more parts the rest of the response is one, so pairs
are lost only where prompt or response do not fit the model or `max_new_tokens` by themselves.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from pipeline.models.chat import Chat

SCORES = (1, 2, 3, 4, 5)


class Partitions:
    """A `Choose` of `pipeline.models.generation.decode`: of the tokens that go on with a partition, the likeliest.

    Args:
        chat: the judge's, for the tokens of text.
        texts: the response that each prompt is about, by the prompt's index.
        rooms: tokens that each answer may have, its stop counted.
        stop: the token that ends an answer.
    """

    def __init__(self, chat: Chat, texts: Sequence[str], rooms: Sequence[int], stop: int) -> None:
        self._chat = chat
        self._texts = texts
        self._rooms = rooms
        self._frame = _Frame(
            opening=self._ids('[{"'),
            between=[self._ids(f'", {score}}}, {{"') for score in SCORES],
            ends=[self._ids(f'", {score}}}]') for score in SCORES],
            stop=stop,
        )
        self._walks: dict[int, _Walk] = {}

    def __call__(self, logits: Tensor, rows: Sequence[int], step: int) -> list[int]:
        """A token for each row of logits [n, V]. At step 0 an answer begins, also one that was begun before."""
        if step == 0:
            self._walks |= {row: self._walk(self._texts[row], self._rooms[row]) for row in rows}
        allowed = [self._walks[row].allowed() for row in rows]
        most = max(map(len, allowed))
        # One look at the device for all rows: short lists are filled up with their first token.
        places = torch.tensor([of + of[:1] * (most - len(of)) for of in allowed], device=logits.device)
        chosen: list[int] = places.gather(1, logits.gather(1, places).argmax(dim=1, keepdim=True))[:, 0].tolist()
        for row, token in zip(rows, chosen, strict=True):
            self._walks[row].take(token)
        return chosen

    def _walk(self, text: str, room: int) -> "_Walk":
        escapes = [json.dumps(character, ensure_ascii=False)[1:-1] for character in text]
        ids, offsets = self._chat.text_ids("".join(escapes), inside=True)
        borders = set(accumulate(map(len, escapes)))
        ends = [stop for _, stop in offsets]
        begins = [start for start, _ in offsets[1:]] + ends[-1:]
        # A token of a part of a character covers all of it, and the next one begins where it began.
        cuts = [end == begin and end in borders for end, begin in zip(ends, begins, strict=True)]
        return _Walk(self._frame, ids, cuts, room)

    def _ids(self, text: str) -> list[int]:
        return self._chat.text_ids(text, inside=True).ids


@dataclass(frozen=True)
class _Frame:
    """Tokens of what is not the response."""

    opening: list[int]
    between: list[list[int]]
    """End of a part and beginning of the next, for each score."""
    ends: list[list[int]]
    """End of the last part, for each score."""
    stop: int

    @property
    def longest_end(self) -> int:
        """Tokens of the longest end, and the stop."""
        return 1 + max(map(len, self.ends))


@dataclass
class _Walk:
    """How far one answer is: `at` tokens of the response are written; `pending` is what may come next.

    Each pending way is the rest of its tokens, how far the response is after them, and whether a part begins there.
    """

    frame: _Frame
    ids: list[int]
    cuts: list[bool]
    """Whether a part may end after each token."""
    room: int
    """Tokens that are left."""
    pending: list[tuple[list[int], int, bool]] = field(init=False)

    def __post_init__(self) -> None:
        self.pending = [(self.frame.opening, 0, True)]

    def allowed(self) -> list[int]:
        """The tokens that may come next, each once; one of them at least."""
        return list(dict.fromkeys(rest[0] for rest, _, _ in self.pending))

    def take(self, token: int) -> None:
        """Go on with a token of `allowed`."""
        self.room -= 1
        self.pending = [(rest[1:], at, begins) for rest, at, begins in self.pending if rest[0] == token]
        for rest, at, begins in self.pending:
            if not rest:
                self.pending = list(self._ways(at, begins))
                return

    def _ways(self, at: int, begins: bool) -> Iterator[tuple[list[int], int, bool]]:
        if at > len(self.ids):
            yield [self.frame.stop], at, False
        elif at == len(self.ids):
            yield from ((end, at + 1, False) for end in self.frame.ends)
        else:
            yield self.ids[at : at + 1], at + 1, False
            if not begins and self.cuts[at - 1] and all(way[0] != self.ids[at] for way in self.frame.between):
                rest = len(self.ids) - at + self.frame.longest_end
                yield from ((way, at, True) for way in self.frame.between if len(way) + rest <= self.room)

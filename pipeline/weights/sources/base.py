"""What a source of raw scores takes and gives: pairs as they are trained on, a score for every trained token."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Report = Callable[[int, int], None]
"""Told the number of pairs, and of computed tokens, that are newly done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceResponse:
    """One response of T trained tokens."""

    text: str
    """As in `pairs`."""
    ids: NDArray[np.integer]
    """[T]"""
    offsets: NDArray[np.integer]
    """[T, 2]: characters of the text that each token covers; zero-width at the end of turn."""
    eos: bool
    """Whether the last token is the end of turn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourcePair:
    """One pair as it is trained on."""

    pair_id: str
    messages: Sequence[Mapping[str, str]]
    """Every turn before the answer: role and content."""
    prompt_ids: NDArray[np.integer]
    """The same in the policy's chat template, cut to the limit."""
    chosen: SourceResponse
    rejected: SourceResponse

    @property
    def responses(self) -> tuple[SourceResponse, SourceResponse]:
        return self.chosen, self.rejected


@dataclass(frozen=True, slots=True)
class ResponseScores:
    """Raw scores of one response."""

    scores: NDArray[np.float32]
    """[T], finite."""
    prompt_score: float = 0.0
    """Sum of the scores of the prompt's tokens, by sources that score those too."""


@dataclass(frozen=True, slots=True)
class PairScores:
    """Raw scores of both responses."""

    chosen: ResponseScores
    rejected: ResponseScores


@dataclass(frozen=True, slots=True)
class NotScored:
    """A pair that the source could not score; it is refused."""

    reason: str
    """A short fixed word."""
    detail: str
    """Counts and field names, never the text."""


class Source(Protocol):
    """Scores pairs, in the given order."""

    def run(self, pairs: Sequence[SourcePair], on_progress: Report) -> list[PairScores | NotScored]: ...

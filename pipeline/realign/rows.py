"""Realignment of the pairs of one shard, in the order of its rows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.config.realign import RealignParams
from pipeline.realign.aligned import Aligned, JudgeTokens, NotAligned, TrainTokens, align_response


@dataclass(frozen=True, kw_only=True, slots=True)
class PairTokens:
    """Both responses of one pair, in judge context and as trained on."""

    pair_id: str
    chosen: tuple[JudgeTokens, TrainTokens]
    rejected: tuple[JudgeTokens, TrainTokens]


@dataclass(frozen=True, slots=True)
class AlignedPair:
    """Both responses of one pair, ready for the objective."""

    pair_id: str
    chosen: Aligned
    rejected: Aligned
    flipped: bool = False
    """Training prefers the rejected response."""


def align_rows(
    pairs: Iterable[PairTokens], params: RealignParams, *, by_characters: bool
) -> Iterator[AlignedPair | NotAligned]:
    """Yield every pair with its weights, or why it is refused."""
    for pair in pairs:
        chosen = _align(pair, "chosen", params, by_characters)
        rejected = _align(pair, "rejected", params, by_characters)
        if isinstance(chosen, NotAligned):
            yield chosen
        elif isinstance(rejected, NotAligned):
            yield rejected
        else:
            yield AlignedPair(pair.pair_id, chosen, rejected)


def _align(pair: PairTokens, response: str, params: RealignParams, by_characters: bool) -> Aligned | NotAligned:
    judge, train = pair.chosen if response == "chosen" else pair.rejected
    return align_response(judge, train, params, by_characters=by_characters, pair_id=pair.pair_id, response=response)

"""Realignment of the pairs of one shard, in the order of its rows, and how much of the weight arrived."""

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


@dataclass(slots=True)
class MatchStatistics:
    """Sums over responses; those of two shards add up to those of both."""

    responses: int = 0
    tokens: float = 0.0
    mass: float = 0.0

    def add(self, aligned: Aligned) -> None:
        self.responses += 1
        self.tokens += aligned.matched_tokens
        self.mass += aligned.matched_mass

    def merge(self, other: "MatchStatistics") -> None:
        self.responses += other.responses
        self.tokens += other.tokens
        self.mass += other.mass

    def means(self) -> dict[str, float]:
        """Mean share of tokens matched (the paper expects more than 0.95) and mean share of the weight carried."""
        count = max(self.responses, 1)
        return {"matched_tokens": self.tokens / count, "matched_mass": self.mass / count}


def align_rows(
    pairs: Iterable[PairTokens],
    params: RealignParams,
    statistics: dict[str, MatchStatistics],
    *,
    by_characters: bool,
) -> Iterator[AlignedPair | NotAligned]:
    """Yield every pair with its weights, or why it is refused; count the others in ``statistics``, by response."""
    for pair in pairs:
        chosen = _align(pair, "chosen", params, by_characters)
        rejected = _align(pair, "rejected", params, by_characters)
        if isinstance(chosen, NotAligned):
            yield chosen
        elif isinstance(rejected, NotAligned):
            yield rejected
        else:
            statistics["chosen"].add(chosen)
            statistics["rejected"].add(rejected)
            yield AlignedPair(pair.pair_id, chosen, rejected)


def _align(pair: PairTokens, response: str, params: RealignParams, by_characters: bool) -> Aligned | NotAligned:
    judge, train = pair.chosen if response == "chosen" else pair.rejected
    return align_response(judge, train, params, by_characters=by_characters, pair_id=pair.pair_id, response=response)

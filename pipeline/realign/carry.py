"""Judge weights to the training tokens of the same tokenizer, token by token (AttentionPO, Appendix D)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.realign.edit_distance import matching_pairs

FloatArray = NDArray[np.float64]
Match = Literal["edit_distance", "official"]


@dataclass(frozen=True, slots=True)
class Carried:
    """Judge weights as they arrive at the T training tokens, before anything is made up for what was lost."""

    weights: FloatArray
    """[T]; 0 where no judge token matches."""
    matched: NDArray[np.bool_]
    """[T]; whether a judge token matches (its weight may still be 0)."""

    @property
    def matched_tokens(self) -> int:
        """Training tokens that a judge token matches."""
        return int(self.matched.sum())

    @property
    def matched_mass(self) -> float:
        """Weight that arrived, of the judge's 1."""
        return float(self.weights.sum())


def carry_by_tokens(
    train_ids: NDArray[np.integer], judge_ids: NDArray[np.integer], judge_weights: FloatArray, match: Match
) -> Carried:
    """Carry ``judge_weights`` [n_J] of ``judge_ids`` [n_J] to ``train_ids`` [T]; unmatched or cut tokens get 0.

    ``edit_distance``: weights go along the alignment of :func:`matching_pairs`. ``official``: as the released code,
    which copies position by position where the ids agree up to the shorter length, and aligns only otherwise.

    The two differ where one sequence was cut: among equally short alignments of [x, y] and [x, y, z, y] edit distance
    matches the second y, so a weight can land behind the cut.
    """
    if match == "official" and _agree(train_ids, judge_ids):
        rows = columns = np.arange(min(len(train_ids), len(judge_ids)))
    else:
        rows, columns = matching_pairs(train_ids, judge_ids)
    weights = np.zeros(len(train_ids))
    weights[rows] = judge_weights[columns]
    matched = np.zeros(len(train_ids), dtype=np.bool_)
    matched[rows] = True
    return Carried(weights, matched)


def _agree(train_ids: NDArray[np.integer], judge_ids: NDArray[np.integer]) -> bool:
    shorter = min(len(train_ids), len(judge_ids))
    return np.array_equal(train_ids[:shorter], judge_ids[:shorter])

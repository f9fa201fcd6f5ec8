"""Realignment of one response: from the judge's weights to what the objective multiplies with, steps (a) to (e)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config.realign import RealignParams
from pipeline.errors import DataError, NonFiniteError
from pipeline.realign.carry import Carried, carry_by_tokens
from pipeline.realign.characters import carry_by_characters

FloatArray = NDArray[np.float64]
NO_MATCHED_MASS = "no_matched_mass"
SUM_TOLERANCE = 1e-3
"""How far float32 weights may sum from 1; far above their rounding, far below any other scale."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeTokens:
    """One response in judge context, n_J tokens, after truncation."""

    token_ids: NDArray[np.integer]
    """[n_J]"""
    offsets: NDArray[np.integer]
    """[n_J, 2]: characters of the response that each token covers."""
    weights: NDArray[np.floating]
    """[n_J], sum 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainTokens:
    """The same response as it is trained on, T tokens, after truncation."""

    token_ids: NDArray[np.integer]
    """[T]"""
    offsets: NDArray[np.integer]
    """[T, 2]: characters of the response that each token covers; that of the end of turn is not read."""
    eos: bool
    """Whether the last token is the end of turn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Aligned:
    """Weights of the T trained tokens. TwDPO (Eq. 5) multiplies them by beta * ``length``."""

    weights: NDArray[np.float32]
    """[T]"""
    length: float
    """|y|: n_J or T."""
    matched_tokens: float
    """Share in [0, 1] of the trained tokens, end of turn excluded, that a judge token matches; 0 if there are none."""
    matched_mass: float
    """Share of the judge's weight that arrived at those tokens; what steps (c) and (d) add does not count."""


@dataclass(frozen=True, slots=True)
class NotAligned:
    """A response that cannot be trained on with these params; its pair is refused."""

    reason: str
    detail: str


def align_response(
    judge: JudgeTokens,
    train: TrainTokens,
    params: RealignParams,
    *,
    by_characters: bool,
    pair_id: str,
    response: str,
) -> Aligned | NotAligned:
    """(a) Judge weights, sum 1; (b) carried to the training tokens; (c) end of turn; (d) renormalized; (e) length.

    ``by_characters`` where the two tokenizers differ, or ``params.tokenizers`` demands it. ``pair_id`` and ``response``
    (``chosen`` or ``rejected``) are for messages. With ``eos_weight: mean``, ``renormalize: true``, ``length: trained``
    and every token matched, uniform judge weights come out as 1/T with |y| = T: plain DPO.

    Refused (``no_matched_mass``): a sum of 0. Raises :class:`NonFiniteError` for a non-finite
    judge weight, and :class:`DataError` for weights that do not sum to 1 or lists of different lengths.
    """
    where = f"pair {pair_id}, {response} response"
    judge_weights = _checked_weights(judge, where)
    if len(train.offsets) != len(train.token_ids):
        raise DataError(
            f"{where}: {len(train.token_ids)} training ids but {len(train.offsets)} offsets; the tokens shard is "
            "damaged: remove it and run tokenize again"
        )
    content = len(train.token_ids) - int(train.eos)
    carried = _carry(judge, judge_weights, train, params, by_characters)
    weights = np.zeros(len(train.token_ids))
    weights[:content] = carried.weights[:content]
    matched_tokens = int(carried.matched[:content].sum())
    matched_mass = float(weights.sum())
    if train.eos and params.eos_weight == "mean" and matched_tokens:
        weights[-1] = matched_mass / matched_tokens
    total = weights.sum()
    if total == 0:
        # Without a weight there is no mean, and a sum of 0 is the log-ratio of a response that nothing is wrong with.
        detail = f"{response}: {matched_tokens} of {content} trained tokens matched, all with weight 0"
        return NotAligned(NO_MATCHED_MASS, detail)
    if params.renormalize:
        weights = weights / total
    return Aligned(
        weights=weights.astype(np.float32),
        length=float(len(judge_weights) if params.length == "judge" else len(weights)),
        matched_tokens=matched_tokens / content if content else 0.0,
        matched_mass=matched_mass,
    )


def _carry(
    judge: JudgeTokens, judge_weights: FloatArray, train: TrainTokens, params: RealignParams, by_characters: bool
) -> Carried:
    content = len(train.token_ids) - int(train.eos)
    if by_characters:
        return carry_by_characters(train.offsets[:content], judge.offsets, judge_weights)
    # The released code aligns with the end of turn among the training ids, though the judge context has none to match.
    last = len(train.token_ids) if params.match == "official" else content
    return carry_by_tokens(train.token_ids[:last], judge.token_ids, judge_weights, params.match)


def _checked_weights(judge: JudgeTokens, where: str) -> FloatArray:
    weights = judge.weights.astype(np.float64)
    if not len(judge.token_ids) == len(judge.offsets) == len(weights):
        raise DataError(
            f"{where}: {len(judge.token_ids)} judge ids, {len(judge.offsets)} offsets and {len(weights)} weights; the "
            "weights shard is damaged: remove it and run postprocess again"
        )
    if not np.isfinite(weights).all():
        position = int(np.flatnonzero(~np.isfinite(weights))[0])
        raise NonFiniteError(
            f"{where}: the weight of judge token {position} is {weights[position]}; the weights shard is damaged: "
            "remove it and run postprocess again"
        )
    if weights.min(initial=0.0) < 0 or abs(weights.sum() - 1) > SUM_TOLERANCE:
        raise DataError(
            f"{where}: judge weights must not be negative and must sum to 1, but their sum is {weights.sum():.6g} and "
            f"their minimum {weights.min(initial=0.0):.6g}: run postprocess again"
        )
    return weights

"""Weights of sources that score the trained tokens themselves: nothing to align, one weight per token."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipeline.config.weights import WeightsParams
from pipeline.io.lists import arrays_of
from pipeline.realign.aligned import Aligned, NotAligned
from pipeline.realign.flip import is_flipped
from pipeline.realign.rows import AlignedPair
from pipeline.schemas.base import RESPONSES
from pipeline.weights.trained.registry import weigh
from pipeline.weights.trained.tokens import ScoredTokens

NO_WEIGHT = "no_weight"
"""No token of a response has a weight, such as one too short for SePO to select a token of it."""


def trained_rows(
    tokens: pa.Table, scores: pa.Table | None, params: WeightsParams, flip: float, flip_seed: int
) -> Iterator[tuple[int, str, AlignedPair | NotAligned]]:
    """Yield row, id and weights of every pair of one shard, or why it is refused; not those that the source refused.

    Args:
        tokens: rows of `data/tokens/`.
        scores: rows of `data/scores/`; None for a source that looks at nothing.
        flip: share of the pairs whose label is flipped, `flip_seed` which.

    Raises DataError where scores are not of these tokens, NonFiniteError for a weight that is not finite.
    """
    found = _scores_by_id(scores) if scores is not None else None
    lengths = {name: [len(ids) for ids in arrays_of(tokens[f"{name}_ids"])] for name in ("prompt", *RESPONSES)}
    eos = {name: tokens[f"{name}_eos"].to_pylist() for name in RESPONSES}
    for row, pair_id in enumerate(tokens["pair_id"].to_pylist()):
        if found is not None and pair_id not in found:
            continue
        flipped = is_flipped(pair_id, flip, flip_seed)
        sides = []
        for name in RESPONSES:
            count = lengths[name][row]
            raw, of_prompt = found[pair_id][name] if found is not None else (np.zeros(count), 0.0)
            scored = ScoredTokens(
                tokens=count,
                eos=eos[name][row],
                preferred=(name == "chosen") != flipped,
                prompt_tokens=lengths["prompt"][row],
                scores=raw,
                prompt_score=of_prompt,
                pair_id=pair_id,
                response=name,
            )
            sides.append(_aligned(scored, params))
        chosen, rejected = sides
        if isinstance(chosen, NotAligned):
            yield row, pair_id, chosen
        elif isinstance(rejected, NotAligned):
            yield row, pair_id, rejected
        else:
            yield row, pair_id, AlignedPair(pair_id, chosen, rejected, flipped)


def _aligned(scored: ScoredTokens, params: WeightsParams) -> Aligned | NotAligned:
    made = weigh(params, scored)
    if not made.weights.any():
        return NotAligned(NO_WEIGHT, f"{scored.response}: none of {scored.tokens} tokens")
    matched = 1.0
    if params.source == "verbalized":
        # 0 is no score that the judge can give: these are the tokens that its parts left out.
        matched = float(np.mean(scored.scores[: scored.tokens - scored.eos] > 0))
    return Aligned(
        weights=made.weights.astype(np.float32), length=made.length, matched_tokens=matched, matched_mass=1.0
    )


def _scores_by_id(table: pa.Table) -> dict[str, dict[str, tuple[np.ndarray, float]]]:
    columns = {
        name: zip(arrays_of(table[f"{name}_scores"]), table[f"{name}_prompt_score"].to_pylist(), strict=True)
        for name in RESPONSES
    }
    rows = zip(table["pair_id"].to_pylist(), columns["chosen"], columns["rejected"], strict=True)
    return {
        pair_id: {
            "chosen": (chosen[0].astype(np.float64), chosen[1]),
            "rejected": (lost[0].astype(np.float64), lost[1]),
        }
        for pair_id, chosen, lost in rows
    }

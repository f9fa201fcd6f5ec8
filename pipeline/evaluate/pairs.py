"""The numbers of test pairs: responses scored under both models, joined with cached weights."""

from collections.abc import Sequence

from pipeline.config.objective import leaves_length_out, parse_settings
from pipeline.config.train import TrainParams
from pipeline.evaluate.divergence import ResponseScores, score_responses
from pipeline.evaluate.preferences import ScoredResponse, check_finite, pair_numbers
from pipeline.models.budget import TokenBudget
from pipeline.models.logps import LogProbModel
from pipeline.models.packed.layout import Prompted
from pipeline.train.pairs import TrainedPair, TrainedResponse


def evaluate_pairs(
    policy: LogProbModel, start: LogProbModel, pairs: Sequence[TrainedPair], train: TrainParams, budget: TokenBudget
) -> list[tuple[str, dict[str, float]]]:
    """pair_id and every number of `pipeline.evaluate.table.NUMBERS`, in the order of `pairs`.

    Raises NonFiniteError, naming the pair, for a NaN or infinite number.
    """
    items = [Prompted(pair.prompt_ids, (pair.chosen.ids, pair.rejected.ids)) for pair in pairs]
    scores = score_responses(policy, start, items, budget)
    return [
        (pair.pair_id, _numbers(pair, chosen, rejected, train))
        for pair, (chosen, rejected) in zip(pairs, scores, strict=True)
    ]


def _numbers(
    pair: TrainedPair, chosen: ResponseScores, rejected: ResponseScores, train: TrainParams
) -> dict[str, float]:
    divergence = {
        f"{name}_{kl}": float(getattr(scores, kl).mean(dtype="float64"))
        for name, scores in (("chosen", chosen), ("rejected", rejected))
        for kl in ("kl_forward", "kl_reverse")
    }
    check_finite(divergence, pair.pair_id)
    return divergence | pair_numbers(
        _scored(pair.chosen, chosen),
        _scored(pair.rejected, rejected),
        train.beta,
        times_length=not leaves_length_out(train.objective, parse_settings(train.objective, train.settings)),
        pair_id=pair.pair_id,
    )


def _scored(response: TrainedResponse, scores: ResponseScores) -> ScoredResponse:
    return ScoredResponse(
        logps=scores.logps, ref_logps=scores.ref_logps, weights=response.weights, length=response.length
    )

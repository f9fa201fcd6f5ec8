"""The negative log-likelihood of one response, which keeps objectives without a reference from drifting."""

from dataclasses import replace
from typing import Literal

from torch import Tensor

from pipeline.objectives.response import PairLosses, Response, summed, token_counts


def nll(response: Response, form: Literal["mean", "sum"]) -> Tensor:
    """[B] -sum_t log pi_theta(y_t), or its mean per token. Without weights: every trained token is learned alike.

    The mean is that of each response. TRL and several official codes take one mean over all tokens of a batch, where
    long responses count more and a pair's loss depends on its neighbours.
    """
    total = -summed(response, response.logps)
    return total if form == "sum" else total / token_counts(response).clamp(min=1.0)


def with_nll(outcome: PairLosses, response: Response, weight: float, form: Literal["mean", "sum"]) -> PairLosses:
    """`outcome` with weight * NLL of a response added to its losses; the rewards stay."""
    return replace(outcome, losses=outcome.losses + weight * nll(response, form))

"""What an objective sees of B pairs, and the sums that objectives are made of."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.config.objective import DivideBy


@dataclass(frozen=True)
class Response:
    """The chosen, the rejected, or the third responses of B pairs, padded to T tokens."""

    logps: Tensor
    """[B, T] float32, log pi_theta(y_t | x, y_<t); carries gradient."""
    mask: Tensor
    """[B, T] bool: the trained tokens of the response. What other positions hold in any tensor plays no part."""
    weights: Tensor
    """[B, T] float32, w_t, a_t of the paper: constants of the loss."""
    lengths: Tensor
    """[B] float32, what the sum of weighted tokens is multiplied by: |y| of Eq. 5 for weights of sum 1, else 1."""
    ref_logps: Tensor | None = None
    """[B, T] float32, log pi_ref(y_t | x, y_<t), for objectives that need `ref_logps`."""
    kls: Tensor | None = None
    """[B, T] float32, KL between pi_ref and pi_theta of the next token over the vocabulary where each token stands;
    carries gradient. For objectives that need `ref_model`, in the direction that their spec names."""


@dataclass(frozen=True)
class Pairs:
    """B pairs. Constant is everything but the responses' `logps` and `kls`."""

    chosen: Response
    rejected: Response
    third: Response | None = None
    """The anchor, or the gold response, for objectives that need one. Its weights are 1."""
    kl_baseline: Tensor | None = None
    """[] float32, KTO's z: at least 0, the same for all pairs of the global batch."""


@dataclass(frozen=True)
class PairLosses:
    """What an objective makes of B pairs; every tensor is [B]."""

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor


def masked(response: Response, values: Tensor) -> Tensor:
    """[B, T] values, 0 where the mask is False, whatever stood there."""
    return torch.where(response.mask, values, torch.zeros_like(values))


def log_ratios(response: Response) -> Tensor:
    """[B, T] r_t = log pi_theta - log pi_ref; 0 where the mask is False. Raises ValueError without `ref_logps`."""
    if response.ref_logps is None:
        raise ValueError("log-ratios need the reference's log-probs")
    return masked(response, response.logps - response.ref_logps.detach())


def token_counts(response: Response) -> Tensor:
    """[B] the number of trained tokens, T, in the dtype of the log-probs."""
    return response.mask.sum(dim=-1).to(response.logps.dtype)


def summed(response: Response, values: Tensor) -> Tensor:
    """[B] sum_t v_t, every trained token once."""
    return masked(response, values).sum(dim=-1)


def weighted_mass(response: Response, values: Tensor) -> Tensor:
    """[B] sum_t w_t v_t. The weights are constants: no gradient flows into them."""
    return (masked(response, response.weights.detach()) * masked(response, values)).sum(dim=-1)


def weighted_sum(response: Response, values: Tensor) -> Tensor:
    """[B] |y| sum_t a_t v_t for weights of sum 1, sum_t w_t v_t for others: the sum of all tokens for even ones."""
    return response.lengths.detach() * weighted_mass(response, values)


def weighted_mean(response: Response, values: Tensor) -> Tensor:
    """[B] sum_t w_t v_t / sum_t w_t: the mean of all tokens where the weights are even. 0 where they sum to 0."""
    total = masked(response, response.weights.detach()).sum(dim=-1)
    return weighted_mass(response, values) / torch.where(total > 0, total, torch.ones_like(total))


def mean_over(divide_by: DivideBy, response: Response, values: Tensor) -> Tensor:
    """[B] `weighted_mean`, or the weighted sum over the number of tokens. One and the same for even weights."""
    if divide_by == "weights":
        return weighted_mean(response, values)
    return weighted_sum(response, values) / token_counts(response).clamp(min=1.0)


def sequence_kl(response: Response) -> Tensor:
    """[B] sum_t KL_t, every trained token once. Raises ValueError without `kls`."""
    return summed(response, _kls(response))


def weighted_kl(response: Response) -> Tensor:
    """[B] the `weighted_sum` of the KLs. Raises ValueError without `kls`."""
    return weighted_sum(response, _kls(response))


def _kls(response: Response) -> Tensor:
    if response.kls is None:
        raise ValueError("the objective needs the KL with the reference at every token")
    return response.kls


def summed_log_ratios(response: Response) -> Tensor:
    """[B] sum_t r_t: the log-ratio of whole responses, as in DPO."""
    return log_ratios(response).sum(dim=-1)

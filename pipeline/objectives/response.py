"""What an objective sees of one side of a batch of pairs, and the sums that objectives are made of."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Response:
    """The chosen, or the rejected, responses of B pairs, padded to T tokens."""

    logps: Tensor
    """[B, T] float32, log pi_theta(y_t | x, y_<t); the only tensor that carries gradient."""
    mask: Tensor
    """[B, T] bool: the trained tokens of the response. What other positions hold in any tensor plays no part."""
    weights: Tensor
    """[B, T] float32, a_t of the paper: constants of the loss."""
    lengths: Tensor
    """[B] float32, |y| of Eq. 5."""
    ref_logps: Tensor | None = None
    """[B, T] float32, log pi_ref(y_t | x, y_<t), for objectives that need `ref_logps`."""


@dataclass(frozen=True)
class PairLosses:
    """What an objective makes of B pairs; every tensor is [B]."""

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor


def log_ratios(response: Response) -> Tensor:
    """[B, T] r_t = log pi_theta - log pi_ref; 0 where the mask is False. Raises ValueError without `ref_logps`."""
    if response.ref_logps is None:
        raise ValueError("log-ratios need the reference's log-probs")
    ratios = response.logps - response.ref_logps.detach()
    return torch.where(response.mask, ratios, torch.zeros_like(ratios))


def summed_log_ratios(response: Response) -> Tensor:
    """[B] sum_t r_t: the log-ratio of whole responses, as in DPO."""
    return log_ratios(response).sum(dim=-1)


def weighted_log_ratios(response: Response) -> Tensor:
    """[B] sum_t a_t r_t. The weights are constants: no gradient flows into them."""
    ratios = log_ratios(response)
    weights = torch.where(response.mask, response.weights.detach(), torch.zeros_like(ratios))
    return (weights * ratios).sum(dim=-1)

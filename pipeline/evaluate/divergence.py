"""Log-probs of a response under the policy, and how far the policy has moved from its start at every position.

The divergences are exact sums over the vocabulary, KL(pi_ref || pi_theta) and KL(pi_theta || pi_ref) of the next token,
at the positions of the data's responses. They are not the sequence-level KL of the RLHF objective: that one is an
expectation over responses sampled from the policy, and log-ratios of given responses do not estimate it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.models.budget import TokenBudget
from pipeline.models.logps import LogProbModel
from pipeline.models.packed.layout import Prompted, pack
from pipeline.models.response_logps import item_lengths, split_responses

Floats = NDArray[np.float32]
POSITIONS_AT_ONCE = 256
"""Positions whose distributions over the vocabulary exist at one time."""


@dataclass(frozen=True)
class ResponseScores:
    """One response of T tokens; float32 [T], nats."""

    logps: Floats
    """log pi_theta of each token."""
    ref_logps: Floats
    """log pi_ref of each token."""
    kl_forward: Floats
    """KL(pi_ref || pi_theta) of the next token, where each token stands."""
    kl_reverse: Floats
    """KL(pi_theta || pi_ref)."""


@torch.inference_mode()
def score_responses(
    policy: LogProbModel, start: LogProbModel, items: Sequence[Prompted], budget: TokenBudget
) -> list[list[ResponseScores]]:
    """Score every response of every prompt under both models, which share tokenizer and device; in the given order.

    Both models are in memory; logits are not. `budget`: of one packed row.
    """
    return budget.run_packed(
        item_lengths(items, share=True),
        lambda batch: _score_row(policy, start, [items[index] for index in batch]),
    )


def divergences(start_log_probs: Tensor, policy_log_probs: Tensor) -> tuple[Tensor, Tensor]:
    """KL(start || policy) and KL(policy || start), [N] each, of log-probs [N, V]; rounding below 0 becomes 0."""
    difference = start_log_probs - policy_log_probs
    forward = (start_log_probs.exp() * difference).sum(-1)
    reverse = -(policy_log_probs.exp() * difference).sum(-1)
    return forward.clamp_min(0), reverse.clamp_min(0)


def _score_row(policy: LogProbModel, start: LogProbModel, items: Sequence[Prompted]) -> list[list[ResponseScores]]:
    row = pack(items, share=True).to(policy.model.device)
    hidden = [model.hidden(row) for model in (start, policy)]
    columns: list[list[Tensor]] = [[], [], [], []]
    for first in range(0, len(row.targets), POSITIONS_AT_ONCE):
        rows = slice(first, first + POSITIONS_AT_ONCE)
        start_log_probs, policy_log_probs = (
            model.log_probs(states[rows]) for model, states in zip((start, policy), hidden, strict=True)
        )
        taken = [found.gather(-1, row.targets[rows, None])[:, 0] for found in (policy_log_probs, start_log_probs)]
        for column, values in zip(columns, (*taken, *divergences(start_log_probs, policy_log_probs)), strict=True):
            column.append(values)
    found = [split_responses(torch.cat(column).cpu().numpy(), items) for column in columns]
    return [[ResponseScores(*parts) for parts in zip(*of_item, strict=True)] for of_item in zip(*found, strict=True)]

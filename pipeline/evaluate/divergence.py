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

from pipeline.models.batching import token_batches
from pipeline.models.logps import LogProbModel

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TokenSequence:
    """A prompt of at least one token, and the T response tokens after it; int64."""

    prompt_ids: NDArray[np.int64]
    response_ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass(frozen=True)
class ResponseScores:
    """One response of T tokens; float32 [T], nats."""

    logps: Floats
    """log pi_theta of each token."""
    kl_forward: Floats
    """KL(pi_ref || pi_theta) of the next token, where each token stands."""
    kl_reverse: Floats
    """KL(pi_theta || pi_ref)."""


@torch.inference_mode()
def score_responses(
    policy: LogProbModel, start: LogProbModel, sequences: Sequence[TokenSequence], token_budget: int
) -> list[ResponseScores]:
    """Score every sequence under both models, which share tokenizer and device. Both are in memory; logits are not.

    `token_budget`: tokens of one batch, padding included; the order of the result is that of `sequences`.
    """
    scores: dict[int, ResponseScores] = {}
    for batch in token_batches([len(sequence) for sequence in sequences], token_budget):
        chosen = [sequences[index] for index in batch]
        scores |= zip(batch, _score_batch(policy, start, chosen), strict=True)
    return [scores[index] for index in range(len(sequences))]


def divergences(start_log_probs: Tensor, policy_log_probs: Tensor) -> tuple[Tensor, Tensor]:
    """KL(start || policy) and KL(policy || start), [N] each, of log-probs [N, V]; rounding below 0 becomes 0."""
    difference = start_log_probs - policy_log_probs
    forward = (start_log_probs.exp() * difference).sum(-1)
    reverse = -(policy_log_probs.exp() * difference).sum(-1)
    return forward.clamp_min(0), reverse.clamp_min(0)


def _score_batch(policy: LogProbModel, start: LogProbModel, batch: list[TokenSequence]) -> list[ResponseScores]:
    ids, attention, response = (tensor.to(policy.model.device) for tensor in _padded(batch))
    predicted = response[:, 1:]
    targets = ids[:, 1:][predicted]
    hidden = [
        model.model.model(input_ids=ids, attention_mask=attention, use_cache=False).last_hidden_state[:, :-1][predicted]
        for model in (start, policy)
    ]
    columns: list[list[Tensor]] = [[], [], []]
    for first in range(0, len(targets), policy.chunk_size):
        rows = slice(first, first + policy.chunk_size)
        start_log_probs, policy_log_probs = (
            model.log_probs(states[rows]) for model, states in zip((start, policy), hidden, strict=True)
        )
        columns[0].append(policy_log_probs.gather(-1, targets[rows, None]).squeeze(-1))
        for column, values in zip(columns[1:], divergences(start_log_probs, policy_log_probs), strict=True):
            column.append(values)
    logps, forward, reverse = (torch.cat(column).cpu().numpy() for column in columns)
    ends = np.cumsum([len(sequence.response_ids) for sequence in batch])
    parts = zip(*(np.split(values, ends[:-1]) for values in (logps, forward, reverse)), strict=True)
    return [ResponseScores(*part) for part in parts]


def _padded(batch: list[TokenSequence]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids (int64), attention mask (int64) and response mask (bool), each [B, S], padded on the right."""
    shape = len(batch), max(len(sequence) for sequence in batch)
    ids, attention = (torch.zeros(shape, dtype=torch.int64) for _ in range(2))
    response = torch.zeros(shape, dtype=torch.bool)
    for row, sequence in enumerate(batch):
        prompt, end = len(sequence.prompt_ids), len(sequence)
        ids[row, :end] = torch.from_numpy(np.concatenate([sequence.prompt_ids, sequence.response_ids]))
        attention[row, :end] = 1
        response[row, prompt:end] = True
    return ids, attention, response

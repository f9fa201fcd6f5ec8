"""Per-token log-probs of many responses, batched by a token budget."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.models.batching import token_batches
from pipeline.models.logps import LogProbModel

Sequences = Sequence[tuple[Sequence[int], Sequence[int]]]


@torch.inference_mode()
def response_logps(
    model: LogProbModel,
    sequences: Sequences,
    token_budget: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[NDArray[np.float32]]:
    """For each (prompt ids, response ids) the log-probs of the response's tokens, float32 [T], in the given order.

    `on_progress` is called with the number of sequences, and their tokens, that each batch finished.
    """
    lengths = [len(prompt) + len(response) for prompt, response in sequences]
    found: dict[int, NDArray[np.float32]] = {}
    for batch in token_batches(lengths, token_budget):
        logps = _batch_logps(model, [sequences[index] for index in batch])
        found |= dict(zip(batch, logps, strict=True))
        if on_progress is not None:
            on_progress(len(batch), sum(lengths[index] for index in batch))
    return [found[index] for index in range(len(sequences))]


def _batch_logps(model: LogProbModel, sequences: Sequences) -> list[NDArray[np.float32]]:
    """One right-padded batch."""
    shape = len(sequences), max(len(prompt) + len(response) for prompt, response in sequences)
    input_ids = torch.zeros(shape, dtype=torch.long)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    response_mask = torch.zeros(shape, dtype=torch.bool)
    for row, (prompt, response) in enumerate(sequences):
        end = len(prompt) + len(response)
        input_ids[row, :end] = torch.tensor([*prompt, *response])
        attention_mask[row, :end] = 1
        response_mask[row, len(prompt) : end] = True
    device = next(model.parameters()).device
    logps = model(input_ids.to(device), response_mask.to(device), attention_mask.to(device)).cpu().numpy()
    return [logps[row, len(prompt) : len(prompt) + len(response)] for row, (prompt, response) in enumerate(sequences)]

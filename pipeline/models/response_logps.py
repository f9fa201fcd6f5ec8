"""Per-token log-probs of many responses, in packed rows of a token budget."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.models.batching import packed_batches
from pipeline.models.logps import LogProbModel
from pipeline.models.packed.layout import Prompted, pack, row_length

Floats = NDArray[np.float32]


@torch.inference_mode()
def response_logps(
    model: LogProbModel,
    items: Sequence[Prompted],
    token_budget: int,
    share: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[list[Floats]]:
    """For each prompt, for each of its responses, the log-probs of the response's tokens, float32 [T].

    `share`: a prompt is computed once for all of its responses. `on_progress` is called with the number of items, and
    of computed tokens, that each row finished.
    """
    lengths = item_lengths(items, share)
    device = next(model.parameters()).device
    found: dict[int, list[Floats]] = {}
    for batch in packed_batches(lengths, token_budget):
        chosen = [items[index] for index in batch]
        logps = model(pack(chosen, share).to(device)).cpu().numpy()
        found |= zip(batch, split_responses(logps, chosen), strict=True)
        if on_progress is not None:
            on_progress(len(batch), sum(lengths[index] for index in batch))
    return [found[index] for index in range(len(items))]


def item_lengths(items: Sequence[Prompted], share: bool) -> list[int]:
    """Places that each item takes in a packed row."""
    return [row_length(len(item.prompt_ids), [len(ids) for ids in item.responses], share) for item in items]


def split_responses(values: Floats, items: Sequence[Prompted]) -> list[list[Floats]]:
    """Values [M] of a packed row's response tokens, by item and response."""
    ends = np.cumsum([len(ids) for item in items for ids in item.responses])
    parts = iter(np.split(values, ends[:-1]))
    return [[next(parts) for _ in item.responses] for item in items]

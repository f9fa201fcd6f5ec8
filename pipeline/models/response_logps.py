"""Per-token log-probs of many responses, in packed rows of a token budget."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.models.budget import TokenBudget
from pipeline.models.logps import LogProbModel
from pipeline.models.packed.layout import Prompted, pack, row_length

Floats = NDArray[np.float32]


@torch.inference_mode()
def response_logps(
    model: LogProbModel,
    items: Sequence[Prompted],
    budget: TokenBudget,
    share: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[list[Floats]]:
    """For each prompt, for each of its responses, the log-probs of the response's tokens, float32 [T].

    `budget`: of one packed row. `share`: a prompt is computed once for all of its responses. `on_progress` is told the
    number of items, and of computed tokens, that each row finished. Raises ModelError for an item that does not fit the
    memory even alone.
    """
    device = next(model.parameters()).device

    def row(batch: Sequence[int]) -> list[list[Floats]]:
        chosen = [items[index] for index in batch]
        return split_responses(model(pack(chosen, share).to(device)).cpu().numpy(), chosen)

    return budget.run_packed(item_lengths(items, share), row, on_progress)


def item_lengths(items: Sequence[Prompted], share: bool) -> list[int]:
    """Places that each item takes in a packed row."""
    return [row_length(len(item.prompt_ids), [len(ids) for ids in item.responses], share) for item in items]


def split_responses(values: Floats, items: Sequence[Prompted]) -> list[list[Floats]]:
    """Values [M] of a packed row's response tokens, by item and response."""
    ends = np.cumsum([len(ids) for item in items for ids in item.responses])
    parts = iter(np.split(values, ends[:-1]))
    return [[next(parts) for _ in item.responses] for item in items]

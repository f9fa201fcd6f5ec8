"""Work in batches of a token budget, which gives way when the device runs out of memory."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from pipeline.errors import ModelError
from pipeline.models.batching import packed_batches

_SAID_OF_MEMORY = ("can't allocate memory", "ALLOC_FAILED", "out of memory")
_log = logging.getLogger(__name__)
R = TypeVar("R")


class TokenBudget:
    """Tokens that are computed at once; halved, and said so, each time they do not fit.

    tokens: to begin with. device: named in messages.
    """

    def __init__(self, tokens: int, device: torch.device) -> None:
        self._tokens = tokens
        self._device = device

    def run(
        self,
        number: int,
        batches: Callable[[Sequence[int], int], Sequence[Sequence[int]]],
        compute: Callable[[Sequence[int]], Sequence[R]],
        does_not_fit: Callable[[int, torch.device], str],
    ) -> list[R]:
        """One result for each of `number` items, in their order.

        Args:
            batches: items that are left, and the budget, to batches of these items.
            compute: the results of a batch.
            does_not_fit: what to say of an item that does not fit even alone.

        Raises ModelError with that, and whatever `compute` raises that is not about memory.
        """
        done: dict[int, R] = {}
        while waiting := [item for item in range(number) if item not in done]:
            for batch in batches(waiting, self._tokens):
                results = _within_memory(compute, batch)
                if results is None:
                    if len(batch) == 1:
                        raise ModelError(does_not_fit(batch[0], self._device))
                    self._halve()
                    break
                done |= zip(batch, results, strict=True)
        return [done[item] for item in range(number)]

    def run_packed(
        self,
        lengths: Sequence[int],
        compute: Callable[[Sequence[int]], Sequence[R]],
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[R]:
        """As `run`, of prompts with their responses, each of so many tokens, that lie in packed rows.

        `on_progress` is told the number of items, and of tokens, that each row finished.
        """

        def batches(waiting: Sequence[int], tokens: int) -> list[list[int]]:
            found = packed_batches([lengths[item] for item in waiting], tokens)
            return [[waiting[place] for place in batch] for batch in found]

        def row(batch: Sequence[int]) -> Sequence[R]:
            results = compute(batch)
            if on_progress is not None:
                on_progress(len(batch), sum(lengths[item] for item in batch))
            return results

        def does_not_fit(item: int, device: torch.device) -> str:
            return (
                f"a prompt and its responses, {lengths[item]} tokens, do not fit the memory of {device} even alone;"
                " lower tokenize.max_tokens, use bfloat16, or a device with more memory"
            )

        return self.run(len(lengths), batches, row, does_not_fit)

    def _halve(self) -> None:
        self._tokens = max(1, self._tokens // 2)
        _log.warning(
            "out of memory on %s: going on with a token budget of %d; set runtime.token_budget to that or less",
            self._device,
            self._tokens,
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """CUDA's allocator has a type for it; its libraries, the CPU's allocator and other processes raise a RuntimeError
    that says so."""
    said = any(words in str(error) for words in _SAID_OF_MEMORY)
    return isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and said)


def _within_memory(compute: Callable[[Sequence[int]], Sequence[R]], batch: Sequence[int]) -> Sequence[R] | None:
    """None when the device ran out of memory: by then the error, which holds on to the tensors, is gone."""
    try:
        return compute(batch)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        return None

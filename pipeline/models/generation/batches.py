"""Many prompts in batches of a token budget."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from pipeline.models.batching import token_batches
from pipeline.models.budget import TokenBudget
from pipeline.models.generation.base import Answer, OnAnswers, rooms
from pipeline.models.generation.decode import Choose, decode, most_likely
from pipeline.models.load import context_length
from pipeline.models.rope import longrope_boundaries


class TransformersGenerator:
    """A Generator (see `pipeline.models.generation.base`) around a model of transformers.

    The model must attend as it was loaded, padding masked: packed rows (`LogProbModel`) do not.

    Args:
        stops: tokens that end an answer.
        budget: of a batch, prompts and whole answers counted: what its keys and values need memory for.
        choose: how the next token is chosen, given the indices of prompts in place of rows.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        stops: Collection[int],
        max_new_tokens: int,
        budget: TokenBudget,
        choose: Choose = most_likely,
    ) -> None:
        self._model = model.eval()
        self._stops = frozenset(stops)
        self._max_new_tokens = max_new_tokens
        self._budget = budget
        self._choose = choose
        self._boundaries = longrope_boundaries(model.config)

    @property
    def context(self) -> int:
        return context_length(self._model.config)

    def answers(
        self, prompts: Sequence[Sequence[int]], names: Sequence[str], on_answers: OnAnswers | None = None
    ) -> list[Answer]:
        room = rooms(prompts, names, self.context, self._max_new_tokens)

        def batches(waiting: Sequence[int], budget: int) -> list[list[int]]:
            found = self._batches(
                [len(prompts[index]) for index in waiting], [room[index] for index in waiting], budget
            )
            return [[waiting[place] for place in batch] for batch in found]

        def write(batch: Sequence[int]) -> list[Answer]:
            with _softcapped(self._model):
                written = decode(
                    self._model,
                    [prompts[index] for index in batch],
                    [names[index] for index in batch],
                    [room[index] for index in batch],
                    self._stops,
                    lambda logits, rows, step: self._choose(logits, [batch[row] for row in rows], step),
                    self._boundaries,
                )
            if on_answers is not None:
                tokens = sum(len(prompts[index]) + len(of.ids) for index, of in zip(batch, written, strict=True))
                on_answers(len(batch), tokens)
            return written

        def does_not_fit(index: int, device: torch.device) -> str:
            return (
                f"{names[index]} and its answer do not fit the memory of {device} even alone; lower the number of new"
                " tokens, use bfloat16, or a device with more memory"
            )

        return self._budget.run(len(prompts), batches, write, does_not_fit)

    def _batches(self, lengths: Sequence[int], room: Sequence[int], token_budget: int) -> list[list[int]]:
        """Longest first. A prompt whose answer may cross a boundary of longrope is computed alone."""
        wholes = [length + more for length, more in zip(lengths, room, strict=True)]
        alone = [
            index
            for index, (length, whole) in enumerate(zip(lengths, wholes, strict=True))
            if any(length <= boundary < whole for boundary in self._boundaries)
        ]
        rest = [index for index in range(len(lengths)) if index not in set(alone)]
        batches = token_batches([wholes[index] for index in rest], token_budget, self._boundaries)
        return [[rest[place] for place in batch] for batch in batches] + [[index] for index in alone]


@contextmanager
def _softcapped(model: PreTrainedModel) -> Iterator[None]:
    """Eager attention where the model caps its scores (Gemma 2): transformers' sdpa leaves the cap out in silence."""
    before = model.config._attn_implementation
    if getattr(model.config, "attn_logit_softcapping", None) is None or before != "sdpa":
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)

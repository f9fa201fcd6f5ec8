"""Many prompts in batches of a token budget."""

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from pipeline.errors import ModelError
from pipeline.models.batching import token_batches
from pipeline.models.generation.base import Answer, OnAnswers, rooms
from pipeline.models.generation.decode import Choose, decode, most_likely
from pipeline.models.load import context_length
from pipeline.models.rope import longrope_boundaries

_log = logging.getLogger(__name__)
_SAID_OF_MEMORY = ("out of memory", "ALLOC_FAILED", "can't allocate memory")


class TransformersGenerator:
    """A Generator (see `pipeline.models.generation.base`) around a model of transformers.

    The model must attend as it was loaded, padding masked: packed rows (`LogProbModel`) do not.

    Args:
        stops: tokens that end an answer.
        token_budget: of a batch, prompts and whole answers counted: what its keys and values need memory for.
        choose: how the next token is chosen, given the indices of prompts in place of rows.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        stops: Collection[int],
        max_new_tokens: int,
        token_budget: int,
        choose: Choose = most_likely,
    ) -> None:
        self._model = model.eval()
        self._stops = frozenset(stops)
        self._max_new_tokens = max_new_tokens
        self._token_budget = token_budget
        self._choose = choose
        self._boundaries = longrope_boundaries(model.config)

    @property
    def context(self) -> int:
        return context_length(self._model.config)

    def answers(
        self, prompts: Sequence[Sequence[int]], names: Sequence[str], on_answers: OnAnswers | None = None
    ) -> list[Answer]:
        room = rooms(prompts, names, self.context, self._max_new_tokens)
        done: dict[int, Answer] = {}
        while waiting := [index for index in range(len(prompts)) if index not in done]:
            for places in self._batches([len(prompts[index]) for index in waiting], [room[index] for index in waiting]):
                batch = [waiting[place] for place in places]
                found = self._within_memory(batch, prompts, names, room)
                if found is None:
                    self._halve([names[index] for index in batch])
                    break
                done |= zip(batch, found, strict=True)
                if on_answers is not None:
                    on_answers(len(batch), sum(len(prompts[index]) + len(done[index].ids) for index in batch))
        return [done[index] for index in range(len(prompts))]

    def _batches(self, lengths: Sequence[int], room: Sequence[int]) -> list[list[int]]:
        """Longest first. A prompt whose answer may cross a boundary of longrope is computed alone."""
        wholes = [length + more for length, more in zip(lengths, room, strict=True)]
        alone = [
            index
            for index, (length, whole) in enumerate(zip(lengths, wholes, strict=True))
            if any(length <= boundary < whole for boundary in self._boundaries)
        ]
        rest = [index for index in range(len(lengths)) if index not in set(alone)]
        batches = token_batches([wholes[index] for index in rest], self._token_budget, self._boundaries)
        return [[rest[place] for place in batch] for batch in batches] + [[index] for index in alone]

    def _within_memory(
        self, batch: list[int], prompts: Sequence[Sequence[int]], names: Sequence[str], room: Sequence[int]
    ) -> list[Answer] | None:
        """None when the device ran out of memory: by then the error, which holds on to the tensors, is gone."""
        try:
            with _softcapped(self._model):
                return decode(
                    self._model,
                    [prompts[index] for index in batch],
                    [names[index] for index in batch],
                    [room[index] for index in batch],
                    self._stops,
                    lambda logits, rows, step: self._choose(logits, [batch[row] for row in rows], step),
                    self._boundaries,
                )
        except RuntimeError as error:
            known = isinstance(error, torch.OutOfMemoryError) or any(said in str(error) for said in _SAID_OF_MEMORY)
            if not known:
                raise
            return None

    def _halve(self, names: list[str]) -> None:
        """Go on with half the token budget. Raises ModelError for a prompt alone."""
        if len(names) == 1:
            raise ModelError(
                f"{names[0]} and its answer do not fit the memory of {self._model.device} even alone; lower the "
                "number of new tokens, use bfloat16, or a device with more memory"
            )
        self._token_budget = max(1, self._token_budget // 2)
        _log.warning(
            "out of memory on %s: going on with a token budget of %d; set runtime.token_budget to that or less",
            self._model.device,
            self._token_budget,
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


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

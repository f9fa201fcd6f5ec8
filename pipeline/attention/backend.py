"""What every extraction backend takes and gives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError, ModelError
from pipeline.schemas.attention import MEAN_OVER_HEADS, ROLLOUT

__all__ = ["MEAN_OVER_HEADS", "ROLLOUT"]

Source = Literal["attention", "rollout"]

QueryPosition = Literal["predicting_position", "verdict_token_row"]
"""METHODS A1: the last prompt position, which predicts the verdict, or the position of the verdict token itself."""


@dataclass(frozen=True)
class JudgePrompt:
    """One judge prompt and the token spans, half-open, whose scores are wanted."""

    input_ids: Sequence[int]
    spans: tuple[tuple[int, int], ...]
    name: str = ""
    """How errors name it, for example by pair id and round; never the text."""


@dataclass(frozen=True)
class Judgement:
    """What one forward pass says about one prompt."""

    rows: dict[int, list[npt.NDArray[np.float32]]]
    """Layer (0-based; ROLLOUT for the rollout) -> per span [n] the scores [K, n] of the query position, one row for
    each of the backend's K `heads`."""
    verdict: "VerdictProbs | None" = None
    """None where the backend was not asked for it."""


@dataclass(frozen=True)
class VerdictProbs:
    """Softmax over the whole vocabulary at the last prompt position."""

    prob_a: float
    prob_b: float
    top_token: int
    """The most probable token there."""


@dataclass
class Usage:
    """What a backend has computed so far."""

    prompt_tokens: int = 0
    """Of the prompts as they are, each prefix counted in every prompt."""
    computed_tokens: int = 0
    """Positions that passed through the layers."""
    flops: float = 0.0
    """Floating-point operations of these, by `pipeline.attention.flops`."""


class Backend(Protocol):
    """A judge that is ready to work: model loaded; layers, heads and query position fixed."""

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers of every Judgement, 0-based and ascending; (ROLLOUT,) for the rollout."""
        ...

    @property
    def heads(self) -> tuple[int, ...]:
        """The heads of every row, 0-based and ascending; (MEAN_OVER_HEADS,) for their mean."""
        ...

    @property
    def usage(self) -> Usage:
        """Tokens and operations since the backend was opened."""
        ...

    def run(self, prompts: Sequence[JudgePrompt], on_progress: Callable[[int], None] | None = None) -> list[Judgement]:
        """Judge all prompts; results in their order, whatever the batches.

        `on_progress` is called with the number of prompts that each batch finished.
        Raises ModelError, before any work, for a prompt that the judge cannot take; NonFiniteError for a score or
        probability that is not finite.
        """
        ...


def check_prompts(prompts: Sequence[JudgePrompt], *, context: int, vocabulary: int, extra: int = 0) -> None:
    """Refuse, by index and name, prompts that the judge cannot take, before any of them is worked on.

    `context`: positions of the judge, of which `extra` are used up after the prompt;
    `vocabulary`: rows of its embedding.
    """
    for index, prompt in enumerate(prompts):
        where = describe(prompt, index)
        length = len(prompt.input_ids)
        if length == 0:
            raise DataError(f"{where} holds no token; run `render` again")
        if length + extra > context:
            raise ModelError(
                f"{where} has {length} tokens{f' and {extra} more to read' if extra else ''}, but the judge's context "
                f"ends at {context}; lower `render.max_tokens` or choose a judge with a longer context"
            )
        if min(prompt.input_ids) < 0 or max(prompt.input_ids) >= vocabulary:
            raise ModelError(
                f"{where} holds token ids outside the judge's {vocabulary} embeddings; it was rendered with the "
                "tokenizer of another model: run `render` again with `model.judge`"
            )
        if any(not 0 <= start <= end <= length for start, end in prompt.spans):
            raise DataError(f"{where} has spans {prompt.spans} outside its {length} tokens; run `render` again")


def describe(prompt: JudgePrompt, index: int) -> str:
    """How an error names a prompt."""
    return f"judge prompt {index}" + (f" ({prompt.name})" if prompt.name else "")

"""Section `render`: the judge prompt and its truncation (METHODS 2.2, point 2; defaults of the official code)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Section


class RenderParams(Section):
    """How a pair becomes two judge prompts."""

    spans: Literal["exact", "official_trim"] = "exact"
    """`exact`: every response character is covered. `official_trim`: its last tokens are dropped, as in the code."""
    official_trim_tokens: Annotated[int, Field(ge=0)] = 2
    """Tokens that `official_trim` drops from the end of each response, of which one always stays. The code's patterns
    lose 1 or 2 with Llama-3 and Mistral, by how the line end before the delimiter is tokenized, and none with Gemma."""
    max_tokens: Annotated[int, Field(ge=1)] = 2048
    """A judge prompt of this many tokens or more is cut."""
    answer_tokens: Annotated[int, Field(ge=1)] = 768
    """A cut prompt keeps at most so many first tokens of each answer."""
    reserve_tokens: Annotated[int, Field(ge=0)] = 300
    """A cut prompt keeps the last `max_tokens - reserve_tokens - n_A - n_B` tokens of the question."""

    @model_validator(mode="after")
    def _room_for_a_question(self) -> "RenderParams":
        room = self.max_tokens - self.reserve_tokens - 2 * self.answer_tokens
        if room < 1:
            raise ValueError(
                f"max_tokens - reserve_tokens - 2 * answer_tokens = {room}: nothing is left of the question of a cut"
                " prompt; raise `max_tokens` or lower `answer_tokens`"
            )
        return self

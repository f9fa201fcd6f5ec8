"""Section `tokenize`: token limits of training (paper, Table 6)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Section


class TokenizeParams(Section):
    """Prompts are cut from the left to `max_prompt_tokens`, then responses from the right to `max_tokens` in all."""

    max_tokens: Annotated[int, Field(ge=2)] = 2048
    max_prompt_tokens: Annotated[int, Field(ge=1)] = 1800
    long_prompts: Literal["cut", "refuse"] = "cut"
    """A prompt beyond `max_prompt_tokens`: cut from the left, or its pair is refused (the code of SePO)."""
    min_response_tokens: Annotated[int, Field(ge=1)] = 1
    """A pair with a response of fewer tokens is refused; its end of turn is not counted. 8 in the code of SePO."""

    @model_validator(mode="after")
    def _room_for_a_response(self) -> "TokenizeParams":
        if self.max_prompt_tokens >= self.max_tokens:
            raise ValueError(
                f"max_prompt_tokens ({self.max_prompt_tokens}) must be below max_tokens ({self.max_tokens}),"
                " or a long prompt leaves no room for its response"
            )
        if self.min_response_tokens >= self.max_tokens:
            raise ValueError(
                f"min_response_tokens ({self.min_response_tokens}) must be below max_tokens ({self.max_tokens}), or no"
                " response is long enough"
            )
        return self

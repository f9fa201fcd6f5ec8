"""Section `postprocess`: from raw rows to the weights a_t (paper 2.6; METHODS A2, A7, A8)."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import Section

Heads = Literal["all"] | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class PostprocessParams(Section):
    """Rounds, normalization and the attention sink."""

    layer: int = -1
    """The cached layer to use; 0-based, negative ones count from the last layer of the model. Not looked at where the
    rows of attention rollout are cached, which stand for all layers."""
    heads: Heads = "all"
    """Which of the cached heads are averaged, 0-based: the mean of their raw scores in each round, before rounds are
    combined. `all`: every one that `extract.heads` cached; after `mean` or `each`, the mean over all (the paper)."""
    rounds: Literal["average_then_normalize", "normalize_then_average"] = "average_then_normalize"
    """METHODS A2. The paper averages the raw rounds first; the released code normalizes each round first."""
    sink_tokens: Annotated[int, Field(ge=0)] = 1
    """K of Eq. 14: so many first tokens get the uniform weight 1/|y|; 0 leaves the attention sink in place."""
    sink_min_tokens: Annotated[int, Field(ge=1)] = 5
    """K' of Eq. 14: shorter responses are left as they are."""
    top_tokens: Annotated[int, Field(ge=1)] = 10
    """Rows of the table of most weighted tokens (paper, Table 2)."""
    top_tokens_min_count: Annotated[int, Field(ge=1)] = 100
    """A token enters that table only if it occurs at least so often."""

    @field_validator("heads")
    @classmethod
    def _distinct(cls, heads: Heads) -> Heads:
        if heads != "all" and len(set(heads)) != len(heads):
            raise ValueError(f"{heads} names one twice")
        return heads

    @model_validator(mode="after")
    def _sink_shorter_than_response(self) -> "PostprocessParams":
        if self.sink_tokens and self.sink_min_tokens <= self.sink_tokens:
            raise ValueError(
                f"sink_min_tokens (K' = {self.sink_min_tokens}) must exceed sink_tokens (K = {self.sink_tokens}),"
                " or no token is left to carry the rest of the weight"
            )
        return self

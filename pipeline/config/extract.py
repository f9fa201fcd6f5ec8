"""Section `extract`: which row of the judge's attention is cached."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import Section

DType = Literal["float32", "bfloat16"]
Head = Annotated[int, Field(ge=0)]


class ExtractParams(Section):
    """Attention from the verdict's position to the tokens of both responses (paper 2.5)."""

    source: Literal["attention", "rollout"] = "attention"
    """The row of one layer (paper 2.5), or attention rollout through all of them (paper 4.2)."""
    layers: list[int] = Field(default=[-1], min_length=1)
    """0-based; negative ones count from the last layer. All are cached in one forward pass; rollout reads all of the
    model's layers and none of these."""
    heads: Literal["mean", "each"] | Annotated[list[Head], Field(min_length=1)] = "mean"
    """`mean`: the mean over all heads (the paper). `each`, or a list of 0-based heads: one row per head, so that
    `postprocess.heads` chooses among them."""
    query: Literal["predicting_position", "verdict_token_row"] = "predicting_position"
    """METHODS A1: the last prompt position, which predicts the verdict, or the row of the verdict's own token."""
    dtype: DType = "float32"
    """Of the judge's weights and activations; rows are float32 always."""
    verdicts: bool = True
    """Read P(A) and P(B) too, which needs every layer. False: the layers above the highest wanted one are not run, and
    data/verdicts holds no rows."""

    @field_validator("layers", "heads")
    @classmethod
    def _distinct(cls, values: list[int] | str) -> list[int] | str:
        if not isinstance(values, str) and len(set(values)) != len(values):
            raise ValueError(f"{values} names one twice")
        return values

    @model_validator(mode="after")
    def _fits(self) -> "ExtractParams":
        if self.source == "rollout" and self.heads != "mean":
            raise ValueError(
                f"heads: {self.heads} has no meaning for source: rollout, which multiplies the means over heads"
            )
        if self.query == "verdict_token_row" and not self.verdicts:
            raise ValueError("query: verdict_token_row reads the verdict first; set verdicts: true")
        return self

"""Section `extract`: which row of the judge's attention is cached."""

from typing import Literal

from pydantic import Field, field_validator

from pipeline.config.base import Section

DType = Literal["float32", "bfloat16"]


class ExtractParams(Section):
    """Attention from the verdict's position to the tokens of both responses (paper 2.5)."""

    source: Literal["attention"] = "attention"
    layers: list[int] = Field(default=[-1], min_length=1)
    """0-based; negative ones count from the last layer. All are cached in one forward pass."""
    heads: Literal["mean"] = "mean"
    query: Literal["predicting_position", "verdict_token_row"] = "predicting_position"
    """METHODS A1: the last prompt position, which predicts the verdict, or the row of the verdict's own token."""
    dtype: DType = "float32"
    """Of the judge's weights and activations; rows are float32 always."""

    @field_validator("layers")
    @classmethod
    def _distinct(cls, layers: list[int]) -> list[int]:
        if len(set(layers)) != len(layers):
            raise ValueError(f"layers {layers} name one layer twice")
        return layers

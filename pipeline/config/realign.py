"""Section `realign`: from the judge's tokens to the trained tokens (paper, Appendix D; METHODS A3 to A5)."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.base import Section


class RealignParams(Section):
    """The five steps of the design's "Realignment, in this order"."""

    match: Literal["edit_distance", "official"] = "edit_distance"
    """`official`: copied where one token sequence is a prefix of the other, else edit distance."""
    tokenizers: Literal["auto", "characters"] = "auto"
    """`auto`: by tokens when judge and policy share their tokenizer, else by characters; `characters`: always."""
    eos_weight: Literal["zero", "mean"] = "zero"
    """Weight of the end-of-turn token, which the judge never saw; `mean`: matched mass over matched tokens."""
    renormalize: bool = False
    """Divide the carried weights by their sum, so that unmatched tokens cost no mass."""
    length: Literal["judge", "trained"] = "judge"
    """|y| of Eq. 5: the response's tokens in the judge's context, or the trained tokens."""
    flip_labels: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of the train pairs whose preference is flipped (TI-DPO's robustness test); after `extract`, so that no
    attention is computed again. Weights that depend on which response is preferred follow."""
    flip_seed: int = 42
    """Which pairs: by a hash, so that a larger share flips all that a smaller one does."""

"""Weights that the judge says in words (paper 4.2 and Appendix I; METHODS 2.3). Decoding is greedy."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.base import Section


class VerbalizedParams(Section):
    """For weights.source verbalized."""

    answers: Literal["free", "partition"] = "free"
    """`free`: the judge writes what it likes, and pairs whose answers are not the list asked for are refused (paper).
    `partition`: every token is chosen among those that go on with a partition of the response, so that any judge gives
    scores; by transformers, whatever `runtime.backend` says."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 2048
    """Of one answer, which repeats its response with a score after every part: several tokens for each of the
    response. A pair with a longer answer is refused; `partition` ends no more parts where the room ends."""
    min_matched: Annotated[float, Field(ge=0.0, le=1.0)] = 0.9
    """Share of a response's tokens that must get a score, or the pair is refused (paper: 90%)."""

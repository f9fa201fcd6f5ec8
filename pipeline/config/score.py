"""Section `score`: raw scores of the trained tokens, for weight sources that need them (METHODS 2.3, 3, 4.2 to 4.4).

What turns raw scores into weights is in section `weights`: it can be changed without scoring again.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Section
from pipeline.config.verbalized import VerbalizedParams

SystemText = Annotated[str, Field(min_length=1)]


class GradientScores(Section):
    """TI-DPO (Eq. 5, 6): I_i, the norm of the target's gradient with respect to the embedding of token i."""

    target: Literal["last_response_token", "after_last", "sequence"] = "last_response_token"
    """`last_response_token`: the highest logit where the last trained token is predicted (paper); that token itself has
    no influence on it, so its score is 0. `after_last`: the highest logit after the last token (official code).
    `sequence`: the log-probability of the response, its last token scored 0 too."""
    norm: Literal[1, 2] = 1
    """Over the hidden dimension; 1 in paper and code."""


class ContrastScores(Section):
    """TIS-DPO and SePO: log pi+(y_t) - log pi-(y_t)."""

    models: Literal["prompts", "given"] = "prompts"
    """`prompts`: pi+ and pi- are the policy's start under two system texts (TIS-DPO(P); nothing is trained first).
    `given`: `model.positive` and `model.negative`, such as a DPO model and a reverse-DPO model, or SePO's oracle and
    its reference."""
    positive_prompt: SystemText = (
        "You are a helpful, honest and harmless assistant. Your answers are correct, relevant and clear."
    )
    """System text of pi+; an existing system turn follows it. The wording is ours: the papers' texts are tied to their
    data sets."""
    negative_prompt: SystemText = (
        "You are an unhelpful, dishonest and harmful assistant. Your answers are wrong, irrelevant and confusing."
    )
    """System text of pi-."""

    @model_validator(mode="after")
    def _contrast(self) -> "ContrastScores":
        if self.models == "prompts" and self.positive_prompt == self.negative_prompt:
            raise ValueError("positive_prompt and negative_prompt are the same: every score would be 0; change one")
        return self


class CriticalScores(Section):
    """cDPO: s_t = softmax((1 + c) logits_p - c logits_q)[y_t]; p is `model.positive`, q `model.negative`."""

    strength: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 1.0
    """c, beta_CE in the code."""


class ScoreParams(Section):
    """One part for each source with raw scores; parts of sources that are not chosen play no part."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the models' weights and activations; logits, log-probabilities and scores are float32 always."""
    gradient: GradientScores = GradientScores()
    contrast: ContrastScores = ContrastScores()
    critical: CriticalScores = CriticalScores()
    verbalized: VerbalizedParams = VerbalizedParams()

"""Section `weights`: where the weights of the trained tokens come from, and what makes weights of raw scores.

METHODS 2.3, 3 and 4.2 to 4.5. What a change here costs is little: raw scores are cached, by params of section `score`.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Section

WeightSource = Literal["judge", "verbalized", "gradient", "contrast", "critical", "decay", "uniform", "random"]
Scale = Literal["sum1", "mean1", "raw", "mask"]
EosWeight = Literal["zero", "one", "scored"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Number = Annotated[float, Field(allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0)]


class GradientWeights(Section):
    """TI-DPO (Eq. 7): W = lambda I + (1 - lambda) P; saliency I and prior P sum to 1 over the span.

    Where all of I is 0, W is P (the official code), or even without a prior.
    """

    saliency_share: Share = 0.7
    """lambda; 0.7 in the paper's Table B12, 0.2 in the official config. 0: the prior alone. 1: saliency alone."""
    prior: Literal["gaussian", "softmax", "none"] = "gaussian"
    """`softmax` is named in the paper's Table 2 without a definition. Our reading: softmax of n I over the n tokens
    of the span, so that its arguments have mean 1. `none`: saliency alone, whatever `saliency_share`."""
    prior_width: Positive = 4.0
    """The Gaussian's sigma is n / prior_width: 4 in the paper, 8 in the official config."""
    prior_min_sigma: NonNegative = 0.0
    """Smallest sigma, in tokens: none in the paper, 1 in the official code."""
    span: Literal["response", "sequence"] = "response"
    """Tokens over which saliency and prior are normalized, and the prior centred. `sequence`: prompt and response, as
    the official code; the response's weights then sum to the mass that falls on it."""
    scale: Literal["sum1", "mean1"] = "sum1"
    """Over the span. The paper: sum 1. The official code: mean 1. An objective that does not multiply weights of sum 1
    by |y| needs a beta larger by about the mean response length to keep the scale of DPO's margins."""

    @model_validator(mode="after")
    def _possible(self) -> "GradientWeights":
        if self.span == "sequence" and self.scale == "sum1":
            raise ValueError(
                "span: sequence with scale: sum1 leaves a response with less than a sum of 1, which |y| then"
                " multiplies; set scale: mean1, as the official code has it"
            )
        if self.span == "sequence" and self.prior == "softmax":
            raise ValueError(
                "prior: softmax needs the score of every token of the span, and only the sum of a prompt's scores is"
                " kept; set span: response"
            )
        return self


class ContrastWeights(Section):
    """TIS-DPO and SePO (METHODS 4.2, 4.3): from s_t = log pi+(y_t) - log pi-(y_t).

    The preferred response takes s_t, the dispreferred one -s_t. `exp_clamp` alone clamps s_t before its sign changes.
    """

    transform: Literal[
        "origin", "binary", "threshold", "threshold_and_scale", "rank_based", "random", "exp_clamp", "select"
    ] = "exp_clamp"
    """`exp_clamp`: k exp(mu clamp(s_t, L, U)), the paper of TIS-DPO; not in its code.
    `origin`: as scored, may be negative. `binary`: 1 for the highest `top_percent`, else 0. `threshold`: clamped to
    +-`threshold`. `threshold_and_scale`: clamped to +-`scale_threshold`, then mapped to [`low`, `high`]. `rank_based`:
    the rank within the response, mapped to [`low`, `high`]; 1 for a single token. `random`: from U(`low`, `high`).
    All of these: the code of TIS-DPO (its README takes `rank_based`, its config `binary`).
    `select`: SePO's mask, 1 for the highest `select_share`."""
    top_percent: Annotated[float, Field(gt=0.0, le=100.0)] = 100.0
    """p of `binary`: so many of n tokens are 1: int(n p / 100). Tokens of one score that the count would part are 0."""
    threshold: Positive = 1.0
    scale_threshold: Positive = 1.5
    low: NonNegative = 0.7
    high: Positive = 1.3
    exp_low: Number = -0.5
    """L of `exp_clamp`."""
    exp_high: Number = 1.5
    """U of `exp_clamp`."""
    exp_scale: Positive = 1.0
    """k of `exp_clamp`."""
    exp_slope: NonNegative = 1.0
    """|mu| of `exp_clamp`: mu is positive for the preferred response, negative for the dispreferred one."""
    select_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.3
    """k of SePO: so many of n tokens are 1: int(k n), which is none of a response with n < 1 / k tokens."""
    decimals: Annotated[int, Field(ge=0, le=7)] | None = None
    """Scores are rounded to so many decimals first; none: as computed. 2 in the code of TIS-DPO, which
    makes ties. Not looked at by `random`."""
    skip_first: bool = False
    """`select` as the code of SePO: the first token is never selected, and n does not count it."""
    eos_weight: EosWeight = "scored"
    """Weight of the end of turn: 0 (the code of TIS-DPO), 1, or as that of any token (SePO). A fixed one plays no part
    in ranks and counts."""
    seed: Seed = 42
    """Of `random`."""

    @model_validator(mode="after")
    def _ordered(self) -> "ContrastWeights":
        for low, high in (("low", "high"), ("exp_low", "exp_high")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} ({getattr(self, low)}) must not exceed {high} ({getattr(self, high)})")
        return self


class CriticalWeights(Section):
    """cDPO, "Critical Tokens Matter" (METHODS 4.4): 1 - s_t on the dispreferred response."""

    chosen: Literal["ones", "scores"] = "ones"
    """Weights of the preferred response: all 1 (the paper; `only_neg` of the code), or s_t."""
    eos_weight: EosWeight = "one"
    """Weight of the end of turn where scores are used. The code: 1."""


class DecayWeights(Section):
    """D2PO (METHODS 4.5): gamma^t, t counted from the response's first token."""

    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 0.98
    """1 is DPO."""
    first_exponent: Literal[0, 1] = 0
    """Exponent of the first token: 0 in the paper; 1 in the code, which is a factor gamma on beta."""


class RandomWeights(Section):
    """A control: independent U(low, high) for each token."""

    low: NonNegative = 0.7
    high: Positive = 1.3
    seed: Seed = 42

    @model_validator(mode="after")
    def _ordered(self) -> "RandomWeights":
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) must not exceed high ({self.high})")
        return self


class WeightsParams(Section):
    """One source, and a part for each source that has a choice; parts of other sources play no part."""

    source: WeightSource = "judge"
    """`judge`: attention of the judge, through `extract`, `postprocess` and `realign`. `verbalized`: scores that a
    model writes (1 to 5; 0 for tokens of no part), divided by their sum. `uniform`: 1/T. Others: see below."""
    gradient: GradientWeights = GradientWeights()
    contrast: ContrastWeights = ContrastWeights()
    critical: CriticalWeights = CriticalWeights()
    decay: DecayWeights = DecayWeights()
    random: RandomWeights = RandomWeights()

    def in_use(self) -> dict[str, Any]:
        """The source and its own part: what the weights depend on."""
        part = getattr(self, self.source, None)
        return {"source": self.source, "params": part.model_dump() if part else None}


SCORED: tuple[WeightSource, ...] = ("verbalized", "gradient", "contrast", "critical")
"""Sources of raw scores of the trained tokens; `judge` has its own, the others look at nothing."""


def reads_scores(params: WeightsParams) -> bool:
    """Whether weights are made from raw scores of the trained tokens: not where all that is chosen is a control."""
    if params.source == "contrast":
        return params.contrast.transform != "random"
    if params.source == "gradient":
        # The softmax prior is made of the scores, and without a prior they are all there is.
        return params.gradient.saliency_share > 0 or params.gradient.prior != "gaussian"
    return params.source in SCORED


def scale_of(params: WeightsParams) -> Scale:
    """What the weights come to: those of `sum1` are multiplied by |y|, those of `mask` divided by their count."""
    if params.source == "gradient":
        return params.gradient.scale
    if params.source == "contrast":
        return "mask" if params.contrast.transform == "select" else "raw"
    return "sum1" if params.source in ("judge", "verbalized", "uniform") else "raw"


def may_be_negative(params: WeightsParams) -> bool:
    """Whether a weight can be below 0: such weights have no mean to divide by."""
    return params.source == "contrast" and params.contrast.transform in ("origin", "threshold")

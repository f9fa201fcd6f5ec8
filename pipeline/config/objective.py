"""Section `train`, parts `objective` and `settings`: the objectives by name, and what each takes beside beta.

Checked here and not where the losses are, so that a wrong setting is refused before any stage works. Defaults are those
of METHODS sections 3 to 5. What `train.beta` means is the objective's own: the docstring of its loss says it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.config.base import Section
from pipeline.config.load import validate
from pipeline.errors import ConfigError

Need = Literal["ref_logps", "ref_model", "kl_pairs", "anchor", "gold"]
"""What an objective needs beside the policy's log-probs and the weights: the reference's log-probs of trained tokens;
the reference model itself at training time, for KL over the whole vocabulary; log-probs of mismatched pairs of prompt
and response; a response sampled from the start, with the reference's log-probs; a third response from the data."""
THIRD: tuple[Need, ...] = ("anchor", "gold", "kl_pairs")
"""Needs that a third response answers; an objective has one of them or none."""

WeightKind = Literal["none", "any", "nonnegative", "mask"]
"""none: takes no weights; any: real numbers; nonnegative: divides by their sum, or takes odds; mask: zeros and ones."""
Divergence = Literal["forward", "reverse"]
"""forward: KL(pi_ref || pi_theta); reverse: KL(pi_theta || pi_ref). As `pipeline.models.kls`, which needs torch."""
DivideBy = Literal["weights", "tokens"]

NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
TokenNll = Literal["mean", "sum"]


class Settings(Section):
    """What an objective takes beside beta. The methods say where its values change what the objective takes besides."""

    def unused(self) -> frozenset[Need]:
        """Needs of the objective that play no part with these values."""
        return frozenset()

    def against_negative(self) -> str | None:
        """Why an objective of weight kind `nonnegative` takes no weights below 0; None: with these values it does."""
        return "divides by the sum of the weights"


class NoSettings(Settings):
    """Of an objective that takes beta alone, or nothing."""


class MeanSettings(Settings):
    """Of an objective that takes weighted means."""

    divide_by: DivideBy = "weights"
    """What makes a mean of the weighted sum: the sum of the weights, so that their scale plays no part, or the number
    of tokens, so that it does (D2PO's variants of IPO, ORPO and SimPO; METHODS 4.5). Both are one for even weights."""

    def against_negative(self) -> str | None:
        return None if self.divide_by == "tokens" else "divides by the sum of the weights unless divide_by is tokens"


class IpoSettings(MeanSettings):
    """IPO; beta is its tau."""

    form: Literal["mean", "sum"] = "mean"
    """h, of log-ratios: their mean per token (TRL, HALOs; confirmed by IPO's authors) or their sum (the equation as
    printed; eric-mitchell's DPO code), which is divided by nothing. Values of tau do not carry over from one to the
    other."""

    def against_negative(self) -> str | None:
        return None if self.form == "sum" else super().against_negative()


class KtoSettings(Settings):
    """KTO; a pair is one desirable and one undesirable example."""

    desirable_weight: Positive = 1.0
    """lambda_D."""
    undesirable_weight: Positive = 1.0
    """lambda_U."""


class CpoSettings(Settings):
    """CPO (Xu et al. 2024)."""

    nll_weight: NonNegative = 1.0
    """alpha, of the chosen response's NLL."""
    nll: TokenNll = "mean"
    """mean per token (official code and TRL, which take it over all tokens of a batch; here over each response) or sum
    (the paper's equation)."""


class RdpoSettings(Settings):
    """R-DPO."""

    alpha: NonNegative = 0.05
    """Of the difference of lengths, per token, outside beta. No single published value: 0.05 to 1.0 were searched."""


class OrpoSettings(MeanSettings):
    """ORPO; beta is its lambda."""

    nll: Literal["plain", "weighted"] = "plain"
    """Of the chosen response, beside the odds: the mean over its tokens, or the mean that the odds are of, in which a
    token counts as its weight has it (code of D2PO, METHODS 4.5)."""

    def against_negative(self) -> str:
        return "takes the odds of a mean log-prob, which must be below 0"


class SimpoSettings(MeanSettings):
    """SimPO."""

    gamma: NonNegative = 1.375
    """The target margin, absolute as in the paper and TRL's `simpo_gamma`. The official code has the ratio gamma/beta
    in its place (`gamma_beta_ratio`): gamma = ratio * beta. This is 0.55 * 2.5, of Llama-3-Instruct; it belongs to beta
    2.5, and 0.1 to 0.8 of beta were searched."""


class RrhfSettings(Settings):
    """RRHF for two responses; beta is not used."""

    nll_weight: NonNegative = 1.0
    """lambda, of the chosen response's NLL; 0.1 to 10 searched by SimPO. The official code weights the hinge instead: 1
    in its script, 100 in its argparse default, which is lambda 0.01."""
    nll: TokenNll = "mean"
    """mean per token (official code, there over the padded batch) or sum (the paper's equation)."""


class SlicSettings(Settings):
    """SLiC-HF; beta is not used."""

    delta: NonNegative = 1.0
    """Margin between sums of log-probs (HALOs' default; 0.1 to 2 searched by SimPO)."""
    nll_weight: NonNegative = 0.1
    """lambda, of the chosen response's NLL (HALOs' default; 0.1 to 10 searched by SimPO)."""
    nll: TokenNll = "sum"
    """sum (the paper's equation, HALOs) or mean per token."""


class TpoSettings(Settings):
    """TPO (triple preference optimization)."""

    nll_weight: NonNegative = 1.0
    """alpha, of the gold response's NLL: 1.0 for base models, 0.05 for instructed ones."""
    nll: TokenNll = "mean"
    """mean per token (official code and TRL, which take it over all tokens of a batch; here over each response) or sum
    (the paper's equation)."""
    length_normalized: bool = False
    """TPO-L: means per token in place of sums, and the margin gamma."""
    gamma: NonNegative = 0.5
    """Absolute margin of TPO-L, TRL's `tpo_l_gamma`; releases take 0.3 to 10. Not looked at in TPO, which has none."""

    def against_negative(self) -> str | None:
        return "divides by the sum of the weights where length_normalized is set" if self.length_normalized else None


class Tdpo2Settings(Settings):
    """TDPO2. TDPO1 has no alpha; the official config runs TDPO1 unless its `if_tdpo2` is set."""

    alpha: NonNegative = 0.5
    """Of the difference of sequence KLs; 0 is DPO, but for the rewards, which hold the KLs without alpha."""


class TisdpoSettings(Settings):
    """TIS-DPO with the penalty that its code adds where `token_level` is set; without it, it is `twdpo`."""

    alpha: NonNegative = 0.5
    """Of the difference of weighted sequence KLs; 0 is `twdpo`, and no reference model is read."""

    def unused(self) -> frozenset[Need]:
        return frozenset() if self.alpha else frozenset({"ref_model"})


class SepoSettings(Settings):
    """SePO; beta is not used."""

    scale: Positive = 1.0
    """The paper's gamma, before both means; the official code has none, which is 1."""


class TidpoSettings(Settings):
    """TI-DPO as in the paper: weighted sigmoid and triplet."""

    length_normalized: bool = True
    """true: sum_t w_t r_t of weights that sum to 1, as Eq. 11 has it; margins are then 1/T of DPO's, and beta has to
    grow by about T to match them. false: times |y|, and for weights of other scales, whose |y| is 1."""
    gamma: NonNegative = 0.1
    """Of the triplet loss (Table B12); with 0 no anchor is sampled."""
    margin: NonNegative = 0.001
    """alpha of Eq. 12. The paper gives no value; this is the official config's `alpha_triplet`."""

    def unused(self) -> frozenset[Need]:
        return frozenset() if self.gamma else frozenset({"anchor"})


class TidpoTdpo2Settings(Tdpo2Settings):
    """TI-DPO as in the official code: weighted TDPO2 and triplet. Defaults are its config's, with beta 0.2."""

    gamma: NonNegative = 0.001
    """Of the triplet loss: 0.001 in the config, 0.01 and 0.1 in the README, 0.1 in the paper's Table B12; with 0 no
    anchor is sampled."""
    margin: NonNegative = 0.001
    """`alpha_triplet`: 0.001 in the config, 0.01 and 0.2 in the README. There 0 leaves the triplet loss out; here gamma
    does."""
    kl_coef: NonNegative = 0.0
    """Of the mean of both responses' sequence KLs, added to the loss; 0 in the config."""

    def unused(self) -> frozenset[Need]:
        return frozenset() if self.gamma else frozenset({"anchor"})


@dataclass(frozen=True)
class ObjectiveSpec:
    """What must be known of an objective before any work."""

    settings: type[Settings]
    """The model of `train.settings`."""
    needs: frozenset[Need]
    """All that it can need; `needs_of` leaves out what its settings make idle."""
    weights: WeightKind
    """The strictest; `weights_of` says what its settings make of it."""
    kl: Divergence = "forward"
    """Which KL it takes, where it needs `ref_model`."""


def _spec(settings: type[Settings], weights: WeightKind, *needs: Need, kl: Divergence = "forward") -> ObjectiveSpec:
    return ObjectiveSpec(settings, frozenset(needs), weights, kl)


SPECS: dict[str, ObjectiveSpec] = {
    "dpo": _spec(NoSettings, "none", "ref_logps"),
    "twdpo": _spec(NoSettings, "any", "ref_logps"),
    "twdpo_length_normalized": _spec(NoSettings, "any", "ref_logps"),
    "ipo": _spec(IpoSettings, "nonnegative", "ref_logps"),
    "kto": _spec(KtoSettings, "any", "ref_logps", "kl_pairs"),
    "rdpo": _spec(RdpoSettings, "any", "ref_logps"),
    "cpo": _spec(CpoSettings, "any"),
    "orpo": _spec(OrpoSettings, "nonnegative"),
    "simpo": _spec(SimpoSettings, "nonnegative"),
    "rrhf": _spec(RrhfSettings, "nonnegative"),
    "slic": _spec(SlicSettings, "any"),
    "tpo": _spec(TpoSettings, "nonnegative", "gold"),
    "tdpo1": _spec(NoSettings, "any", "ref_logps", "ref_model"),
    "tdpo2": _spec(Tdpo2Settings, "any", "ref_logps", "ref_model"),
    "tisdpo": _spec(TisdpoSettings, "any", "ref_logps", "ref_model", kl="reverse"),
    "sepo": _spec(SepoSettings, "mask"),
    "cdpo_positionwise": _spec(NoSettings, "any", "ref_logps"),
    "tidpo": _spec(TidpoSettings, "any", "ref_logps", "anchor"),
    "tidpo_tdpo2": _spec(TidpoTdpo2Settings, "any", "ref_logps", "ref_model", "anchor"),
}
"""By the name that `train.objective` gives. cDPO, D2PO, and TIS-DPO without its penalty are `twdpo` with their weights
(METHODS 4)."""


def needs_of(name: str, settings: Settings) -> frozenset[Need]:
    """What an objective needs with these settings: stages and the trainer both go by it."""
    return find_spec(name).needs - settings.unused()


def weights_of(name: str, settings: Settings) -> WeightKind:
    """What weights an objective takes with these settings."""
    kind = find_spec(name).weights
    return "any" if kind == "nonnegative" and settings.against_negative() is None else kind


def third_kind(needs: Collection[Need]) -> Need | None:
    """Which response is needed beside chosen and rejected."""
    return next((kind for kind in THIRD if kind in needs), None)


def leaves_length_out(name: str, settings: Settings) -> bool:
    """Whether weighted sums of weights of sum 1 are not multiplied by |y|."""
    return name == "twdpo_length_normalized" or (name == "tidpo" and getattr(settings, "length_normalized", False))


def find_spec(name: str) -> ObjectiveSpec:
    """Raises ConfigError that lists the known names."""
    if name not in SPECS:
        raise ConfigError(f"train.objective: unknown {name!r}; known: {', '.join(SPECS)}")
    return SPECS[name]


def parse_settings(name: str, settings: Any) -> Settings:
    """Settings of objective `name` from the mapping `train.settings`; what it leaves out has its default.

    Raises ConfigError with one line per problem, `train.settings.KEY: what is wrong`.
    """
    model = find_spec(name).settings
    problems, parsed = validate({"train.settings": settings}, "train.settings", model)
    if parsed is None:
        known = ", ".join(model.model_fields) or "none"
        raise ConfigError("\n".join(f"{problem}; settings of {name}: {known}" for problem in problems))
    return parsed

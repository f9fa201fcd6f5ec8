"""Section `train`, parts `objective` and `settings`: the objectives by name, and what each takes beside beta.

Checked here and not where the losses are, so that a wrong setting is refused before any stage works. Defaults are those
of METHODS sections 3 to 5. What `train.beta` means is the objective's own: the docstring of its loss says it.
"""

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

WeightKind = Literal["none", "any", "nonnegative", "mask"]
"""none: takes no weights; any: real numbers; nonnegative: divides by their sum; mask: zeros and ones."""

NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
TokenNll = Literal["mean", "sum"]


class NoSettings(Section):
    """Of an objective that takes beta alone, or nothing."""


class IpoSettings(Section):
    """IPO; beta is its tau."""

    form: Literal["mean", "sum"] = "mean"
    """h, of log-ratios: their mean per token (TRL, HALOs; confirmed by IPO's authors) or their sum (the equation as
    printed; eric-mitchell's DPO code). Values of tau do not carry over from one to the other."""


class KtoSettings(Section):
    """KTO; a pair is one desirable and one undesirable example."""

    desirable_weight: Positive = 1.0
    """lambda_D."""
    undesirable_weight: Positive = 1.0
    """lambda_U."""


class CpoSettings(Section):
    """CPO (Xu et al. 2024)."""

    nll_weight: NonNegative = 1.0
    """alpha, of the chosen response's NLL."""
    nll: TokenNll = "mean"
    """mean per token (official code and TRL, which take it over all tokens of a batch; here over each response) or sum
    (the paper's equation)."""


class RdpoSettings(Section):
    """R-DPO."""

    alpha: NonNegative = 0.05
    """Of the difference of lengths, per token, outside beta. No single published value: 0.05 to 1.0 were searched."""


class SimpoSettings(Section):
    """SimPO."""

    gamma: NonNegative = 1.375
    """The target margin, absolute as in the paper and TRL's `simpo_gamma`. The official code has the ratio gamma/beta
    in its place (`gamma_beta_ratio`): gamma = ratio * beta. This is 0.55 * 2.5, of Llama-3-Instruct; it belongs to beta
    2.5, and 0.1 to 0.8 of beta were searched."""


class RrhfSettings(Section):
    """RRHF for two responses; beta is not used."""

    nll_weight: NonNegative = 1.0
    """lambda, of the chosen response's NLL; 0.1 to 10 searched by SimPO. The official code weights the hinge instead: 1
    in its script, 100 in its argparse default, which is lambda 0.01."""
    nll: TokenNll = "mean"
    """mean per token (official code, there over the padded batch) or sum (the paper's equation)."""


class SlicSettings(Section):
    """SLiC-HF; beta is not used."""

    delta: NonNegative = 1.0
    """Margin between sums of log-probs (HALOs' default; 0.1 to 2 searched by SimPO)."""
    nll_weight: NonNegative = 0.1
    """lambda, of the chosen response's NLL (HALOs' default; 0.1 to 10 searched by SimPO)."""
    nll: TokenNll = "sum"
    """sum (the paper's equation, HALOs) or mean per token."""


class TpoSettings(Section):
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


class Tdpo2Settings(Section):
    """TDPO2. TDPO1 has no alpha; the official config runs TDPO1 unless its `if_tdpo2` is set."""

    alpha: NonNegative = 0.5
    """Of the difference of sequence KLs; 0 is DPO."""


class SepoSettings(Section):
    """SePO; beta is not used."""

    scale: Positive = 1.0
    """The paper's gamma, before both means; the official code has none, which is 1."""


class TidpoSettings(Section):
    """TI-DPO as in the paper: weighted sigmoid and triplet."""

    length_normalized: bool = True
    """true: sum_t w_t r_t of weights that sum to 1, as Eq. 11 has it; margins are then 1/T of DPO's, and beta has to
    grow by about T to match them. false: times |y|. Without effect on weights of other scales, whose |y| is 1."""
    gamma: NonNegative = 0.1
    """Of the triplet loss (Table B12)."""
    margin: NonNegative = 0.001
    """alpha of Eq. 12. The paper gives no value; this is the official config's `alpha_triplet`."""


class TidpoTdpo2Settings(Tdpo2Settings):
    """TI-DPO as in the official code: weighted TDPO2 and triplet. Defaults are its config's, with beta 0.2."""

    gamma: NonNegative = 0.001
    """Of the triplet loss: 0.001 in the config, 0.01 and 0.1 in the README, 0.1 in the paper's Table B12."""
    margin: NonNegative = 0.001
    """`alpha_triplet`: 0.001 in the config, 0.01 and 0.2 in the README. There 0 leaves the triplet loss out; here gamma
    does."""


@dataclass(frozen=True)
class ObjectiveSpec:
    """What must be known of an objective before any work."""

    settings: type[Section]
    """The model of `train.settings`."""
    needs: frozenset[Need]
    weights: WeightKind
    uses_beta: bool = True
    """Whether the loss depends on `train.beta`."""


def _spec(settings: type[Section], weights: WeightKind, *needs: Need, uses_beta: bool = True) -> ObjectiveSpec:
    return ObjectiveSpec(settings, frozenset(needs), weights, uses_beta)


SPECS: dict[str, ObjectiveSpec] = {
    "dpo": _spec(NoSettings, "none", "ref_logps"),
    "twdpo": _spec(NoSettings, "any", "ref_logps"),
    "twdpo_length_normalized": _spec(NoSettings, "any", "ref_logps"),
    "ipo": _spec(IpoSettings, "nonnegative", "ref_logps"),
    "kto": _spec(KtoSettings, "any", "ref_logps", "kl_pairs"),
    "rdpo": _spec(RdpoSettings, "any", "ref_logps"),
    "cpo": _spec(CpoSettings, "any"),
    "orpo": _spec(NoSettings, "nonnegative"),
    "simpo": _spec(SimpoSettings, "nonnegative"),
    "rrhf": _spec(RrhfSettings, "nonnegative", uses_beta=False),
    "slic": _spec(SlicSettings, "any", uses_beta=False),
    "tpo": _spec(TpoSettings, "nonnegative", "gold"),
    "tdpo1": _spec(NoSettings, "any", "ref_logps", "ref_model"),
    "tdpo2": _spec(Tdpo2Settings, "any", "ref_logps", "ref_model"),
    "sepo": _spec(SepoSettings, "mask", uses_beta=False),
    "cdpo_positionwise": _spec(NoSettings, "any", "ref_logps"),
    "tidpo": _spec(TidpoSettings, "any", "ref_logps", "anchor"),
    "tidpo_tdpo2": _spec(TidpoTdpo2Settings, "any", "ref_logps", "ref_model", "anchor"),
}
"""By the name that `train.objective` gives. cDPO, TIS-DPO and D2PO are `twdpo` with their weights (METHODS 4)."""


def leaves_length_out(name: str, settings: Section) -> bool:
    """Whether weighted sums of weights of sum 1 are not multiplied by |y|."""
    return name == "twdpo_length_normalized" or (name == "tidpo" and getattr(settings, "length_normalized", False))


def find_spec(name: str) -> ObjectiveSpec:
    """Raises ConfigError that lists the known names."""
    if name not in SPECS:
        raise ConfigError(f"train.objective: unknown {name!r}; known: {', '.join(SPECS)}")
    return SPECS[name]


def parse_settings(name: str, settings: Any) -> Section:
    """Settings of objective `name` from the mapping `train.settings`; what it leaves out has its default.

    Raises ConfigError with one line per problem, `train.settings.KEY: what is wrong`.
    """
    model = find_spec(name).settings
    problems, parsed = validate({"train.settings": settings}, "train.settings", model)
    if parsed is None:
        known = ", ".join(model.model_fields) or "none"
        raise ConfigError("\n".join(f"{problem}; settings of {name}: {known}" for problem in problems))
    return parsed

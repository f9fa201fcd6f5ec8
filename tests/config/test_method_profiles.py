"""The profiles of the methods: each writes what `method` writes, so none leaves anything to the next; their values."""

import shutil
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.load import read_params
from pipeline.config.merge import merged
from pipeline.config.objective import parse_settings
from pipeline.config.profile import apply_profile, profile_names, read_profile
from pipeline.config.score import ScoreParams
from pipeline.config.third import ThirdParams
from pipeline.config.weights import WeightsParams
from tests.conftest import ROOT

FOLDER = ROOT / "profiles"
CHOICES = ("paper", "official_code", "clean")
"""Of judge, weights and realignment: with any method."""
METHODS = [name for name in profile_names(FOLDER) if name not in CHOICES and not name.startswith("paper-llama3")]
"""The paper's own runs write more: models, data, lengths, learning rate (tests/train/test_paper_profile.py)."""
SWEEP = {"first-layer": 0, "quarter-layer": 7, "middle-layer": 14, "three-quarter-layer": 22}
BESIDES = {"cross-model": {"model.judge", "model.start"}, **{name: {"extract.layers"} for name in SWEEP}}
"""What a method writes beside the keys of all: it stays when another one follows."""


def leaves(values: Mapping[str, Any], where: str = "") -> set[str]:
    """Paths of values; a model and the settings of an objective are one value each."""
    found = set()
    for key, value in values.items():
        path = f"{where}{key}"
        whole = not isinstance(value, Mapping) or key == "settings" or where == "model."
        found |= {path} if whole else leaves(value, f"{path}.")
    return found


def at(values: Mapping[str, Any], paths: set[str]) -> dict[str, Any]:
    """The part of a profile with these paths, of a section and a key each."""
    parts = (path.split(".") for path in sorted(paths))
    return merged({}, *({section: {key: values[section][key]}} for section, key in parts))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_writes_the_keys_of_all_methods(name: str) -> None:
    assert leaves(read_profile(FOLDER, name)) == leaves(read_profile(FOLDER, "method")) | BESIDES.get(name, set())


def test_after_two_methods_the_params_are_those_of_the_second() -> None:
    params = read_params(ROOT / "params.yaml")
    values = {name: read_profile(FOLDER, name) for name in METHODS}
    for first, second in product(METHODS, METHODS):
        stays = at(values[first], BESIDES.get(first, set()))
        assert merged(params, values[first], values[second]) == merged(params, stays, values[second]), (first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [("ti-dpo-random-weight", "random"), ("tis-dpo-code", "with-attn-sink"), ("verbalized", "simpo")],
)
def test_two_methods_one_after_the_other_in_params_yaml(tmp_path: Path, first: str, second: str) -> None:
    found = {}
    for order in ((second,), (first, second), (first,), (second, first)):
        shutil.copytree(FOLDER, tmp_path / "-".join(order) / "profiles")
        shutil.copy(ROOT / "params.yaml", tmp_path / "-".join(order))
        for name in order:
            apply_profile(tmp_path / "-".join(order), name)
        found[order] = read_params(tmp_path / "-".join(order) / "params.yaml")
    assert found[first, second] == found[second,]
    assert found[second, first] == found[first,]
    assert found[first,] != found[second,]


def test_choices_and_methods_share_no_key() -> None:
    for name in CHOICES:
        assert not leaves(read_profile(FOLDER, name)) & leaves(read_profile(FOLDER, "method")), name


def test_method_holds_every_default_of_its_sections() -> None:
    """So that a key that is added to a source is not left to what params.yaml held before."""
    method = read_profile(FOLDER, "method")
    for name, section in (("weights", WeightsParams()), ("score", ScoreParams()), ("third", ThirdParams())):
        every = section.model_dump(exclude={"dtype"})
        assert method[name] == every, name
    assert read_profile(FOLDER, "twdpo") == method


def test_the_committed_params_hold_what_method_writes() -> None:
    """So that the first profile of a user runs again what it changes, and nothing for a key that was not there."""
    params = read_params(ROOT / "params.yaml")
    assert merged(params, read_profile(FOLDER, "method")) == params


@pytest.mark.parametrize("name", METHODS)
def test_a_model_is_named_with_all_its_keys(name: str) -> None:
    for role, ref in read_profile(FOLDER, name)["model"].items():
        assert isinstance(ref, str) or set(ref) == {"source", "name", "revision", "chat_template"}, role


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_of_the_objective_is_written(name: str) -> None:
    train = read_profile(FOLDER, name)["train"]
    assert set(train["settings"]) == set(type(parse_settings(train["objective"], train["settings"])).model_fields)


def profile(name: str) -> tuple[WeightsParams, ScoreParams, dict[str, Any]]:
    values = read_profile(FOLDER, name)
    return WeightsParams.model_validate(values["weights"]), ScoreParams.model_validate(values["score"]), values["train"]


def test_ti_dpo_has_two_profiles_that_share_little() -> None:
    """METHODS 3.4 and 8: what paper and code have."""
    paper, paper_score, paper_train = profile("ti-dpo-paper")
    code, code_score, code_train = profile("ti-dpo-code")
    assert (paper.source, code.source) == ("gradient", "gradient")
    assert (paper.gradient.saliency_share, code.gradient.saliency_share) == (0.7, 0.2)
    assert (paper.gradient.prior_width, code.gradient.prior_width) == (4.0, 8.0)
    assert (paper.gradient.prior_min_sigma, code.gradient.prior_min_sigma) == (0.0, 1.0)
    assert (paper.gradient.span, code.gradient.span) == ("response", "sequence")
    assert (paper.gradient.scale, code.gradient.scale) == ("sum1", "mean1")
    assert (paper_score.gradient.target, code_score.gradient.target) == ("last_response_token", "after_last")
    assert (paper_train["objective"], code_train["objective"]) == ("tidpo", "tidpo_tdpo2")
    assert (paper_train["beta"], code_train["beta"]) == (0.1, 0.2)
    assert paper_train["settings"] == {"length_normalized": True, "gamma": 0.1, "margin": 0.001}
    assert code_train["settings"] == {"alpha": 0.5, "gamma": 0.001, "margin": 0.001, "kl_coef": 0.0}


def test_tis_dpo_as_its_paper_and_as_its_release_have_it() -> None:
    """METHODS 4.2: the paper's exponential with any pair, the README's ranks with a pair of DPO models."""
    for name, models, transform, eos_weight, decimals in (
        ("tis-dpo", "prompts", "exp_clamp", "scored", None),
        ("tis-dpo-given", "given", "exp_clamp", "scored", None),
        ("tis-dpo-code", "given", "rank_based", "zero", 2),
        ("tis-dpo-config", "given", "binary", "zero", 2),
    ):
        weights, score, train = profile(name)
        assert weights.source == "contrast"
        assert weights.contrast.decimals == decimals
        assert (score.contrast.models, weights.contrast.transform, weights.contrast.eos_weight) == (
            models, transform, eos_weight,
        )  # fmt: skip
        assert (weights.contrast.exp_low, weights.contrast.exp_high) == (-0.5, 1.5)
        assert (weights.contrast.low, weights.contrast.high) == (0.7, 1.3)
        assert (train["objective"], train["beta"]) == ("twdpo", 0.1)
    for name, of in (("tis-dpo-kl", "tis-dpo"), ("tis-dpo-code-kl", "tis-dpo-code")):
        assert profile(name)[0] == profile(of)[0]
        assert (profile(name)[2]["objective"], profile(name)[2]["settings"]) == ("tisdpo", {"alpha": 0.5})


def test_code_that_trains_with_rmsprop() -> None:
    """METHODS 3.2, 4.1, 4.2."""
    keys = ("optimizer", "schedule", "warmup_steps", "max_grad_norm")
    found = {name: tuple(read_profile(FOLDER, name)["train"][key] for key in keys) for name in METHODS}
    of_code = ("rmsprop", "constant", 150, 10.0)
    names = {"tdpo1", "tdpo2", "ti-dpo-code", "tis-dpo-code", "tis-dpo-config", "tis-dpo-code-kl"}
    assert {name for name, values in found.items() if values == of_code} == names
    assert {values for name, values in found.items() if name not in names} == {("adamw", "cosine", None, 1.0)}


@pytest.mark.parametrize(
    ("name", "objective", "beta", "settings"),
    [
        ("dpo", "dpo", 0.1, {}),
        ("with-len-norm", "twdpo_length_normalized", 2.0, {}),
        ("ipo", "ipo", 0.1, {"form": "mean", "divide_by": "weights"}),
        ("kto", "kto", 0.1, {"desirable_weight": 1.0, "undesirable_weight": 1.0}),
        ("rdpo", "rdpo", 0.1, {"alpha": 0.05}),
        ("cpo", "cpo", 0.1, {"nll_weight": 1.0, "nll": "mean"}),
        ("orpo", "orpo", 0.1, {"divide_by": "weights", "nll": "plain"}),
        ("simpo", "simpo", 2.5, {"gamma": 1.375, "divide_by": "weights"}),
        ("rrhf", "rrhf", 0.1, {"nll_weight": 1.0, "nll": "mean"}),
        ("slic-hf", "slic", 0.1, {"delta": 1.0, "nll_weight": 0.1, "nll": "sum"}),
        ("tdpo1", "tdpo1", 0.1, {}),
        ("tdpo2", "tdpo2", 0.1, {"alpha": 0.5}),
        ("tpo", "tpo", 0.01, {"nll_weight": 1.0, "nll": "mean", "length_normalized": False, "gamma": 0.5}),
        ("sepo", "sepo", 0.1, {"scale": 1.0}),
        ("d2po-orpo", "orpo", 0.1, {"divide_by": "tokens", "nll": "weighted"}),
    ],
)
def test_objective_beta_and_settings_of_a_method(
    name: str, objective: str, beta: float, settings: dict[str, Any]
) -> None:
    """METHODS 2.1, 4.1, 4.3, 4.5 and 5: what each method's own code and paper, or SimPO's protocol, have."""
    train = read_profile(FOLDER, name)["train"]
    assert (train["objective"], train["beta"], train["settings"]) == (objective, beta, settings)


def test_the_other_methods_have_the_values_of_their_papers() -> None:
    """METHODS 4.3 to 4.5 and 5."""
    sepo, score, train = profile("sepo")
    assert (sepo.contrast.transform, sepo.contrast.select_share, sepo.contrast.skip_first) == ("select", 0.3, False)
    code = read_profile(FOLDER, "sepo-code")
    assert code["weights"]["contrast"] == read_profile(FOLDER, "sepo")["weights"]["contrast"] | {
        "skip_first": True,
        "select_share": 0.9,
    }
    assert code["tokenize"] == {"long_prompts": "refuse", "min_response_tokens": 8}
    assert (score.contrast.models, train["objective"]) == ("given", "sepo")
    for name, objective in (("cdpo", "twdpo"), ("cdpo-code", "cdpo_positionwise")):
        cdpo, score, train = profile(name)
        assert (cdpo.source, cdpo.critical.chosen, cdpo.critical.eos_weight) == ("critical", "ones", "one")
        assert (score.critical.strength, train["objective"], train["beta"]) == (1.0, objective, 0.1)
        assert train["epochs"] == 3
    for name, exponent in (("d2po", 0), ("d2po-code", 1)):
        d2po, _, train = profile(name)
        assert (d2po.source, d2po.decay.gamma, d2po.decay.first_exponent) == ("decay", 0.98, exponent)
        assert (train["objective"], train["beta"]) == ("twdpo", 0.1)
    for name in ("ipo", "orpo", "simpo"):
        weights, _, train = profile(f"d2po-{name}")
        assert (weights.source, weights.decay.gamma, weights.decay.first_exponent) == ("decay", 0.98, 1)
        assert (train["objective"], train["settings"]["divide_by"]) == (name, "tokens")
    forms = [profile(name)[2]["settings"]["form"] for name in ("ipo", "ipo-sum")]
    assert forms == ["mean", "sum"]
    tpo, tpo_l = (profile(name)[2] for name in ("tpo", "tpo-l"))
    assert (tpo["beta"], tpo["settings"]["length_normalized"]) == (0.01, False)
    assert (tpo_l["beta"], tpo_l["settings"]["length_normalized"], tpo_l["settings"]["gamma"]) == (10.0, True, 3.0)


@pytest.mark.parametrize(("name", "layer"), SWEEP.items())
def test_a_profile_of_the_sweep_caches_all_five_layers(name: str, layer: int) -> None:
    values = read_profile(FOLDER, name)
    assert (values["postprocess"]["layer"], values["extract"]["layers"]) == (layer, [0, 7, 14, 22, 29])

"""Settings of objectives: defaults, strictness and what every problem is called."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.objective import (
    SPECS,
    Need,
    SimpoSettings,
    TidpoTdpo2Settings,
    WeightKind,
    find_spec,
    needs_of,
    parse_settings,
    third_kind,
    weights_of,
)
from pipeline.errors import ConfigError


@pytest.mark.parametrize("name", SPECS)
def test_every_setting_has_a_default(name: str) -> None:
    parsed = parse_settings(name, {})
    assert type(parsed) is SPECS[name].settings
    assert parse_settings(name, parsed.model_dump()) == parsed


def test_settings_are_read() -> None:
    assert parse_settings("simpo", {"gamma": 2}) == SimpoSettings(gamma=2.0)


def test_the_official_code_of_ti_dpo_by_default() -> None:
    parsed = parse_settings("tidpo_tdpo2", None)
    assert parsed == TidpoTdpo2Settings(alpha=0.5, gamma=0.001, margin=0.001, kl_coef=0.0)


@pytest.mark.parametrize(
    ("name", "settings", "lines"),
    [
        ("simpo", {"gama": 1.0}, ["train.settings.gama: unknown key"]),
        ("dpo", {"gamma": 1.0}, ["train.settings.gamma: unknown key"]),
        ("simpo", {"gamma": -1.0}, ["train.settings.gamma: "]),
        ("simpo", {"gamma": "1.0"}, ["train.settings.gamma: "]),
        ("simpo", {"gamma": float("inf")}, ["train.settings.gamma: "]),
        ("simpo", {"gamma": float("nan")}, ["train.settings.gamma: "]),
        ("tidpo", {"length_normalized": 1}, ["train.settings.length_normalized: "]),
        ("ipo", {"form": "median"}, ["train.settings.form: "]),
        ("orpo", {"divide_by": "length"}, ["train.settings.divide_by: "]),
        ("tisdpo", {"alpha": -0.5}, ["train.settings.alpha: "]),
        ("kto", {"desirable_weight": 0.0}, ["train.settings.desirable_weight: "]),
        ("cpo", {"nll": "max", "nll_weight": -1.0, "x": 0}, ["s.nll_weight: ", "s.nll: ", "s.x: "]),
        ("cpo", [1], ["train.settings: "]),
        ("cpo", "mean", ["train.settings: "]),
    ],
)
def test_each_problem_is_a_line_with_its_path(name: str, settings: Any, lines: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(name, settings)
    found = str(caught.value).splitlines()
    assert len(found) == len(lines)
    for line in lines:
        assert any(one.startswith("train.settings") and line in one and f"settings of {name}: " in one for one in found)


def test_a_wrong_key_says_which_there_are() -> None:
    with pytest.raises(ConfigError, match=r"settings of tpo: nll_weight, nll, length_normalized, gamma$"):
        parse_settings("tpo", {"beta": 0.1})
    with pytest.raises(ConfigError, match=r"settings of twdpo: none$"):
        parse_settings("twdpo", {"beta": 0.1})


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_settings("simpo", {}).gamma = 1.0  # type: ignore[attr-defined]


def test_an_unknown_objective_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"train\.objective: unknown 'dpoo'; known: dpo, twdpo"):
        find_spec("dpoo")


def test_needs_of_reference_free_objectives() -> None:
    free = {name for name, spec in SPECS.items() if "ref_logps" not in spec.needs}
    assert free == {"cpo", "orpo", "simpo", "rrhf", "slic", "tpo", "sepo"}
    for name, spec in SPECS.items():
        if spec.needs & {"ref_model", "kl_pairs", "anchor"}:
            assert "ref_logps" in spec.needs, name


def test_directions_of_kls() -> None:
    """METHODS 4.1, 4.2: KL(ref || policy) for TDPO and TI-DPO's code, the reverse for TIS-DPO."""
    found = {name: spec.kl for name, spec in SPECS.items() if "ref_model" in spec.needs}
    assert found == {"tdpo1": "forward", "tdpo2": "forward", "tidpo_tdpo2": "forward", "tisdpo": "reverse"}


@pytest.mark.parametrize(
    ("name", "settings", "idle"),
    [
        ("tidpo", {"gamma": 0.0}, {"anchor"}),
        ("tidpo_tdpo2", {"gamma": 0.0}, {"anchor"}),
        ("tisdpo", {"alpha": 0.0}, {"ref_model"}),
        # Their rewards hold the KLs all the same.
        ("tdpo2", {"alpha": 0.0}, set()),
        ("tidpo_tdpo2", {"alpha": 0.0}, set()),
    ],
)
def test_what_a_weight_of_0_leaves_without_a_part_is_not_needed(
    name: str, settings: dict[str, Any], idle: set[Need]
) -> None:
    assert needs_of(name, parse_settings(name, settings)) == SPECS[name].needs - idle


@pytest.mark.parametrize("name", SPECS)
def test_with_defaults_every_need_plays_a_part(name: str) -> None:
    assert needs_of(name, parse_settings(name, {})) == SPECS[name].needs


def test_an_objective_has_one_third_response_or_none() -> None:
    assert third_kind({"ref_logps", "anchor"}) == "anchor"
    assert third_kind({"ref_logps", "ref_model"}) is None
    for spec in SPECS.values():
        assert len(spec.needs & {"anchor", "gold", "kl_pairs"}) <= 1


@pytest.mark.parametrize(
    ("name", "settings", "kind"),
    [
        ("ipo", {}, "nonnegative"),
        ("ipo", {"form": "sum"}, "any"),
        ("ipo", {"divide_by": "tokens"}, "any"),
        ("simpo", {}, "nonnegative"),
        ("simpo", {"divide_by": "tokens"}, "any"),
        ("orpo", {}, "nonnegative"),
        ("orpo", {"divide_by": "tokens"}, "nonnegative"),
        ("tpo", {}, "any"),
        ("tpo", {"length_normalized": True}, "nonnegative"),
        ("rrhf", {}, "nonnegative"),
        ("tisdpo", {}, "any"),
        ("sepo", {}, "mask"),
        ("dpo", {}, "none"),
    ],
)
def test_only_who_divides_by_weights_refuses_negative_ones(
    name: str, settings: dict[str, Any], kind: WeightKind
) -> None:
    assert weights_of(name, parse_settings(name, settings)) == kind


def test_params_are_checked_without_torch(root: Path) -> None:
    code = "import sys, pipeline.config.objective; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0

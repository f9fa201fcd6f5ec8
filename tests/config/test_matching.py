"""Which profiles params hold: found from values, with defaults, and with the user's own models."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.load import read_params
from pipeline.config.matching import matching_profiles
from pipeline.config.merge import merged
from pipeline.config.profile import read_profile
from pipeline.errors import ConfigError
from tests.conftest import ROOT

FOLDER = ROOT / "profiles"
PARAMS = read_params(ROOT / "params.yaml")


def after(*names: str, **changes: Any) -> dict[str, Any]:
    return merged(PARAMS, *(read_profile(FOLDER, name) for name in names), changes)


@pytest.mark.parametrize(
    ("name", "also"),
    [
        ("twdpo", ["method"]),
        ("cross-model", ["method", "twdpo"]),
        ("quarter-layer", []),
        ("with-attn-sink", []),
        ("ti-dpo-no-prior", []),
        ("tis-dpo-code", []),
        ("tpo-l", []),
        ("uniform", []),
    ],
)
def test_a_profile_that_was_written_is_found_and_no_other_method(name: str, also: list[str]) -> None:
    assert matching_profiles(after(name), FOLDER, depth=30) == sorted([name, "paper", *also])


def test_methods_and_choices_are_found_together() -> None:
    assert matching_profiles(after("ti-dpo-paper", "clean"), FOLDER) == ["clean", "ti-dpo-paper"]


def test_the_committed_params_are_twdpo_with_the_paper_s_choices() -> None:
    assert matching_profiles(PARAMS, FOLDER) == ["method", "paper", "twdpo"]


def test_what_is_left_out_has_its_default_and_the_last_layer_two_names() -> None:
    weights = {"source": "judge", "random": {"seed": 42}}
    named = {**PARAMS, "weights": weights, "postprocess": {**PARAMS["postprocess"], "layer": 29}}
    assert matching_profiles(named, FOLDER, depth=30) == ["method", "paper", "twdpo"]
    assert matching_profiles(named, FOLDER) == ["paper"]
    assert matching_profiles(named, FOLDER, depth=32) == ["paper"]


def test_one_value_changed_by_hand_is_no_profile_s() -> None:
    assert matching_profiles(after("simpo", train={"beta": 2.0}), FOLDER) == ["paper"]
    assert matching_profiles(after("kto", train={"settings": {}}), FOLDER) == ["kto", "paper"]
    assert matching_profiles(after("kto", train={"learning_rate": 1e-4}), FOLDER) == ["kto", "paper"]


def test_a_model_that_a_profile_leaves_to_be_named_may_be_any() -> None:
    ref = {"source": "hub", "name": "a/b", "revision": "main", "chat_template": None}
    assert matching_profiles(after("cdpo", model={"positive": ref}), FOLDER) == ["cdpo", "paper"]
    assert matching_profiles(after("cdpo", model={"positive": "start"}), FOLDER) == ["paper"]
    assert matching_profiles(after("method", model={"positive": ref}), FOLDER) == ["paper"]
    assert matching_profiles(after("paper-llama3", model={"judge": ref}), FOLDER) == ["paper"]


def test_params_that_do_not_fit_are_no_profile_s() -> None:
    assert matching_profiles(after("dpo", weights={"source": "judge"}), FOLDER) == []


def test_a_profile_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert matching_profiles(PARAMS, tmp_path) == []
    (tmp_path / "mine.yaml").write_text("extends: nothing\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        matching_profiles(PARAMS, tmp_path)

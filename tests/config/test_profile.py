"""Profiles write literal values, with those of what they extend, and keep comments; nothing invalid is written."""

import shutil
from pathlib import Path

import pytest

from pipeline.config.check import check_all
from pipeline.config.load import read_params
from pipeline.config.profile import apply_profile, read_profile
from pipeline.errors import ConfigError


@pytest.fixture
def copy(tmp_path: Path, root: Path) -> Path:
    shutil.copy(root / "params.yaml", tmp_path)
    shutil.copytree(root / "profiles", tmp_path / "profiles")
    return tmp_path


def test_a_profile_changes_what_it_names_and_nothing_else(copy: Path) -> None:
    before = (copy / "params.yaml").read_text()
    changed = apply_profile(copy, "clean")
    assert changed == [
        "realign.eos_weight: zero -> mean",
        "realign.renormalize: False -> True",
        "realign.length: judge -> trained",
    ]
    realign = check_all(copy / "params.yaml")["realign"]
    assert (realign.eos_weight, realign.renormalize, realign.length) == ("mean", True, "trained")
    after = (copy / "params.yaml").read_text()
    assert len(after.splitlines()) == len(before.splitlines())
    assert "# K of Eq. 14" in after
    assert apply_profile(copy, "clean") == []


PAPER = {
    "render": {"spans": "exact"},
    "extract": {"query": "predicting_position"},
    "postprocess": {"rounds": "average_then_normalize"},
    "realign": {"match": "edit_distance", "eos_weight": "zero", "renormalize": False, "length": "judge"},
}
"""DESIGN section 6, METHODS 2.4: A1 to A6."""
CODE = {
    "render": {"spans": "official_trim", "official_trim_tokens": 2},
    "extract": {"query": "predicting_position"},
    "postprocess": {"rounds": "normalize_then_average"},
    "realign": {"match": "official", "eos_weight": "zero", "renormalize": False, "length": "judge"},
}
CLEAN = {**PAPER, "realign": {"match": "edit_distance", "eos_weight": "mean", "renormalize": True, "length": "trained"}}


@pytest.mark.parametrize(("name", "values"), [("paper", PAPER), ("official_code", CODE), ("clean", CLEAN)])
def test_the_choices_of_paper_and_code(name: str, values: dict[str, dict[str, object]], copy: Path) -> None:
    assert read_profile(copy / "profiles", name) == values


def test_back_to_the_paper_gives_the_committed_file(copy: Path) -> None:
    before = read_params(copy / "params.yaml")
    assert len(apply_profile(copy, "official_code")) == 3
    assert len(apply_profile(copy, "paper")) == 3
    assert read_params(copy / "params.yaml") == before


def test_an_unknown_profile_names_the_known_ones(copy: Path) -> None:
    with pytest.raises(ConfigError, match=r"'papper' does not exist; there are: cdpo, cdpo-code, clean, .*, paper"):
        apply_profile(copy, "papper")


def test_an_invalid_result_is_not_written_and_names_profile_and_file(copy: Path) -> None:
    before = (copy / "params.yaml").read_text()
    (copy / "profiles" / "bad.yaml").write_text("train:\n  beta: -1.0\n")
    with pytest.raises(
        ConfigError, match=r"^profile bad on top of params\.yaml, .*: 1 problem.*\n  train\.beta"
    ) as caught:
        apply_profile(copy, "bad")
    assert str(copy) not in str(caught.value)
    assert (copy / "params.yaml").read_text() == before


def test_lines_that_a_profile_does_not_change_stay_on_their_line(copy: Path) -> None:
    long = "What is " + "very " * 40 + "long?"
    file = copy / "params.yaml"
    file.write_text(file.read_text().replace("What is the capital of France?", long))
    before = file.read_text().splitlines()
    changed = apply_profile(copy, "clean")
    after = file.read_text().splitlines()
    assert sum(old != new for old, new in zip(before, after, strict=True)) == len(changed)


def profiles(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_a_profile_is_what_differs_from_the_ones_that_it_extends(tmp_path: Path) -> None:
    profiles(
        tmp_path,
        a="train: {objective: simpo, beta: 2.5, settings: {gamma: 1.0}}\nthird: {seed: 1}\n",
        b="extends: a\ntrain: {beta: 1.0}\n",
        c="extends: b\ntrain: {objective: ipo, settings: {form: sum}}\n",
    )
    assert read_profile(tmp_path, "c") == {
        "train": {"objective": "ipo", "beta": 1.0, "settings": {"form": "sum"}},
        "third": {"seed": 1},
    }


@pytest.mark.parametrize("above", ["papper", "../a", "[a]"])
def test_an_unknown_profile_to_extend_names_both_files(tmp_path: Path, above: str) -> None:
    profiles(tmp_path, a=f"extends: {above}\n")
    with pytest.raises(ConfigError, match=r"a\.yaml: extends: .*, but .*\.yaml does not exist; there are: a$"):
        read_profile(tmp_path, "a")


@pytest.mark.parametrize(("start", "way"), [("a", "b -> c -> b"), ("b", "b -> c -> b"), ("self", "self -> self")])
def test_profiles_that_extend_each_other_are_refused(tmp_path: Path, start: str, way: str) -> None:
    profiles(tmp_path, a="extends: b\n", b="extends: c\n", c="extends: b\n", self="extends: self\n")
    with pytest.raises(ConfigError, match=rf"(c|self)\.yaml: extends: .*(b|self)\.yaml extends it in turn \({way}\)"):
        read_profile(tmp_path, start)

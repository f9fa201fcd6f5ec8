"""Profiles write literal values and keep the comments; what would be invalid is not written."""

import shutil
from pathlib import Path

import pytest

from pipeline.config.check import check_all
from pipeline.config.profile import apply_profile
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


def test_back_to_the_paper_gives_the_committed_file(copy: Path) -> None:
    before = (copy / "params.yaml").read_text()
    apply_profile(copy, "official_code")
    assert (copy / "params.yaml").read_text() != before
    apply_profile(copy, "paper")
    assert check_all(copy / "params.yaml")["render"].spans == "exact"


def test_an_unknown_profile_names_the_known_ones(copy: Path) -> None:
    with pytest.raises(ConfigError, match=r"'papper' does not exist; there are: cdpo, clean, .*, paper"):
        apply_profile(copy, "papper")


def test_an_invalid_result_is_not_written(copy: Path) -> None:
    before = (copy / "params.yaml").read_text()
    (copy / "profiles" / "bad.yaml").write_text("train:\n  beta: -1.0\n")
    with pytest.raises(ConfigError, match=r"train\.beta"):
        apply_profile(copy, "bad")
    assert (copy / "params.yaml").read_text() == before

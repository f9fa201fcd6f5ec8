"""compare/params.yaml as committed: every row has params that fit, none rests on what a profile leaves behind."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.check import check_params
from pipeline.config.load import read_params
from pipeline.config.merge import merged
from pipeline.config.profile import profile_names, read_profile
from pipeline.errors import ConfigError
from stages.compare_row import _write_params, row_params

HERE = Path(__file__).resolve().parents[2]
COMPARISON = read_params(HERE / "compare" / "params.yaml")
PARAMS = read_params(HERE / "params.yaml")


def params_of(row: str, base: dict[str, Any]) -> dict[str, Any]:
    return check_params(merged(base, COMPARISON["base"], COMPARISON["all"][row] or {}), row)


@pytest.mark.parametrize("row", COMPARISON["all"])
def test_a_row_s_params_fit(row: str) -> None:
    params_of(row, PARAMS)


def test_the_listed_rows_are_there() -> None:
    assert set(COMPARISON["rows"]) <= set(COMPARISON["all"])


@pytest.mark.parametrize("profile", profile_names(HERE / "profiles"))
def test_a_profile_changes_no_row(profile: str) -> None:
    after_it = merged(PARAMS, read_profile(HERE / "profiles", profile))
    for row in ("twdpo", "rollout", "ti-dpo", "tis-dpo", "simpo"):
        before, after = params_of(row, PARAMS), params_of(row, after_it)
        for section in ("model", "extract", "postprocess", "tokenize", "weights", "score", "realign", "third", "train"):
            assert before[section] == after[section], (row, section)


def test_a_row_with_another_judge_keeps_the_start() -> None:
    model = row_params(HERE, COMPARISON, "cross-model")["model"]
    assert Path(model["judge"]["name"]).parts[-2:] == ("models", "other-judge")
    assert model["start"] == COMPARISON["base"]["model"]["judge"]


def test_params_that_do_not_fit_are_said_of_the_row(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^row bad of compare/params\.yaml: 1 problem.*\n  train\.beta: ") as caught:
        _write_params(tmp_path, merged(PARAMS, {"train": {"beta": -1.0}}), "bad")
    assert str(tmp_path) not in str(caught.value)
    assert not list(tmp_path.iterdir())

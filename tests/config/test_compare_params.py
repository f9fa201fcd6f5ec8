"""compare/params.yaml as committed: every row has params that fit, none rests on what a profile leaves behind."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.config.check import check_all
from pipeline.config.load import read_params
from pipeline.config.merge import merged
from pipeline.config.profile import apply_profile

HERE = Path(__file__).resolve().parents[2]
COMPARISON = read_params(HERE / "compare" / "params.yaml")


def params_of(row: str, base: Path, tmp_path: Path) -> dict[str, object]:
    params = merged(read_params(base), COMPARISON["base"], COMPARISON["all"][row] or {})
    with (tmp_path / "row.yaml").open("w", encoding="utf-8") as stream:
        YAML().dump(params, stream)
    return check_all(tmp_path / "row.yaml")


@pytest.mark.parametrize("row", COMPARISON["all"])
def test_a_row_s_params_fit(row: str, tmp_path: Path) -> None:
    params_of(row, HERE / "params.yaml", tmp_path)


def test_the_listed_rows_are_there() -> None:
    assert set(COMPARISON["rows"]) <= set(COMPARISON["all"])


@pytest.mark.parametrize("profile", ["simpo", "uniform", "rollout", "with-attn-sink", "ti-dpo-code", "paper"])
def test_a_profile_changes_no_row(profile: str, tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    for name in ("params.yaml", f"profiles/{profile}.yaml"):
        (tmp_path / name).write_bytes((HERE / name).read_bytes())
    apply_profile(tmp_path, profile)
    for row in ("twdpo", "rollout", "ti-dpo", "simpo"):
        before = params_of(row, HERE / "params.yaml", tmp_path)
        after = params_of(row, tmp_path / "params.yaml", tmp_path)
        for section in ("extract", "postprocess", "weights", "realign", "train"):
            assert before[section] == after[section], (row, section)

"""compare/params.yaml as committed: every row has params that fit, none rests on what a profile leaves behind."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.config.check import check_params
from pipeline.config.compare import read_comparison
from pipeline.config.load import read_params
from pipeline.config.merge import merged
from pipeline.config.profile import profile_names, read_profile
from pipeline.errors import ConfigError
from stages.compare_check import check_same_pairs_and_start
from stages.compare_folder import row_params, write_params

HERE = Path(__file__).resolve().parents[2]
COMPARISON = read_comparison(HERE)
PARAMS = read_params(HERE / "params.yaml")


def params_of(row: str, base: dict[str, Any]) -> dict[str, Any]:
    return check_params(merged(base, COMPARISON.base, COMPARISON.all[row] or {}), row)


@pytest.mark.parametrize("row", COMPARISON.all)
def test_a_row_s_params_fit(row: str) -> None:
    check_same_pairs_and_start({"dpo": params_of("dpo", PARAMS), row: params_of(row, PARAMS)})


GOOD: dict[str, Any] = {
    "rows": ["a"], "answers": 2, "bootstrap_samples": 10, "confidence": 0.9, "base": {}, "all": {"a": None, "b": {}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": ["a", "c"]}, r"rows: no row 'c' under `all`; there are a, b"),
        ({"rows": ["a", "b", "a"]}, r"rows: a stand there more than once"),
        ({"rows": []}, r"rows: List should have at least 1 item"),
        ({"rows": "a"}, r"rows: Input should be a valid list"),
        ({"rows": None}, r"rows: Input should be a valid list"),
        ({"answers": -3}, r"answers: Input should be greater than or equal to 0"),
        ({"bootstrap_samples": 0}, r"bootstrap_samples: .*greater than or equal to 1"),
        ({"confidence": 95}, r"confidence: .*less than 1"),
        ({"base": None}, r"base: Input should be a valid dictionary"),
        ({"all": {"a": "simpo"}}, r"all\.a: .*valid dictionary"),
        ({"all": {"a": None, "../b": None}}, r"all\.\.\./b.*: String should match pattern"),
        ({"all": {"a": None, "store": None}}, r"all: store is the name of what rows share"),
        ({"profile": "simpo"}, r"profile: unknown key"),
    ],
)
def test_what_the_file_itself_says_is_checked(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "compare").mkdir()
    with (tmp_path / "compare" / "params.yaml").open("w", encoding="utf-8") as stream:
        YAML().dump({**GOOD, **change}, stream)
    with pytest.raises(ConfigError, match=rf"^compare/params\.yaml: \d problem.*\n(.*\n)*  {message}"):
        read_comparison(tmp_path)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"prepare": {"limit": 10}}, "prepare"),
        ({"tokenize": {"max_tokens": 99, "max_prompt_tokens": 50}}, "tokenize"),
        (
            {"model": {"start": {"source": "folder", "name": "other", "revision": None, "chat_template": None}}},
            "model.start",
        ),
    ],
)
def test_a_row_of_other_pairs_or_another_start_is_refused(change: dict[str, Any], path: str) -> None:
    dpo = params_of("dpo", PARAMS)
    other = check_params(merged(PARAMS, COMPARISON.base, COMPARISON.all["dpo"] or {}, change), "other")
    with pytest.raises(ConfigError, match=rf"row other .*: {path} is not that of row dpo; .* set it under `base`"):
        check_same_pairs_and_start({"dpo": dpo, "other": other})


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
    assert model["start"] == (COMPARISON.base["model"] or {})["judge"]


def test_params_that_do_not_fit_are_said_of_the_row(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^row bad of compare/params\.yaml: 1 problem.*\n  train\.beta: ") as caught:
        write_params(tmp_path, merged(PARAMS, {"train": {"beta": -1.0}}), "bad")
    assert str(tmp_path) not in str(caught.value)
    assert not list(tmp_path.iterdir())

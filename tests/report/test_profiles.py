"""The line on profiles: the judge's depth comes from its rows, where there are any."""

import shutil
from pathlib import Path

from pipeline.config.load import read_params
from pipeline.io.parquet import write_table
from pipeline.report.profiles import profiles_line
from pipeline.schemas.attention import ATTENTION


def test_the_committed_params_are_said_to_be_twdpo(tmp_path: Path, root: Path) -> None:
    shutil.copytree(root / "profiles", tmp_path / "profiles")
    params = read_params(root / "params.yaml")
    twdpo = "<code>method</code>, <code>paper</code>, <code>twdpo</code> ("
    assert twdpo in profiles_line(tmp_path, params)
    params["postprocess"]["layer"] = 29
    assert "the profiles <code>paper</code> (" in profiles_line(tmp_path, params)
    shard = tmp_path / "data" / "attention" / "train" / "part-00000.parquet"
    write_table(shard, ATTENTION.empty_table(), {"num_layers": 30})
    assert twdpo in profiles_line(tmp_path, params)


def test_params_of_no_profile_are_said_to_be_of_none(tmp_path: Path, root: Path) -> None:
    assert profiles_line(tmp_path, read_params(root / "params.yaml")) == "They hold all values of no profile:"

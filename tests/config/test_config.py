"""params.yaml: every problem at once, by its path; contradictions between sections; profiles that load."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.config.check import SECTIONS, check_all, check_params
from pipeline.config.load import load_section, read_params, validate
from pipeline.config.merge import merged
from pipeline.config.model import ModelParams
from pipeline.config.postprocess import PostprocessParams
from pipeline.config.profile import profile_names, read_profile
from pipeline.config.train import TrainParams
from pipeline.errors import ConfigError
from tests.conftest import ROOT


def write(path: Path, changes: dict[str, Any], root: Path) -> Path:
    yaml = YAML(typ="safe", pure=True)
    params = yaml.load((root / "params.yaml").read_text(encoding="utf-8"))
    for key, value in changes.items():
        section, *rest = key.split(".")
        if rest:
            params.setdefault(section, {})[rest[0]] = value
        else:
            params[section] = value
    with (path / "params.yaml").open("w") as stream:
        yaml.dump(params, stream)
    return path / "params.yaml"


def test_the_committed_params_are_valid_and_complete(root: Path) -> None:
    sections = check_all(root / "params.yaml")
    content = YAML(typ="safe", pure=True).load((root / "params.yaml").read_text(encoding="utf-8"))
    assert list(content) == list(SECTIONS)
    for name, section in sections.items():
        assert set(content[name]) == set(type(section).model_fields), f"{name}: every key is shown to the user"


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"train.beta": 0}, ["train.beta"]),
        ({"train.beta": "1e-5"}, ["train.beta", "'1e-5'"]),
        ({"train.betta": 1.0}, ["train.betta: unknown key"]),
        ({"trian": {}}, ["trian: unknown section"]),
        ({"extract.layers": [1, 1]}, ["extract.layers", "names one twice"]),
        ({"extract.layers": []}, ["extract.layers"]),
        ({"postprocess.sink_tokens": 5}, ["sink_min_tokens (K' = 5) must exceed sink_tokens (K = 5)"]),
        ({"postprocess.layer": 7}, ["postprocess.layer: 7 is not among extract.layers"]),
        ({"postprocess.heads": []}, ["postprocess.heads"]),
        ({"postprocess.heads": [-1]}, ["postprocess.heads"]),
        ({"postprocess.heads": "each"}, ["postprocess.heads"]),
        ({"postprocess.heads": [1, 1], "extract.heads": "each"}, ["postprocess.heads: [1, 1] names one twice"]),
        (
            {"postprocess.heads": [1]},
            ["postprocess.heads: [1] can't be chosen: extract.heads: mean caches no", "or extract.heads to each"],
        ),
        (
            {"postprocess.heads": [5, 1, 2], "extract.heads": [2, 3]},
            ["postprocess.heads: [1, 5] not among extract.heads [2, 3]"],
        ),
        (
            {"postprocess.heads": [1], "extract.source": "rollout"},
            ["postprocess.heads: [1] can't be chosen: rollout caches no", "set postprocess.heads: all\n"],
        ),
        ({"reference.dtype": "bfloat16"}, ["reference.dtype: bfloat16 differs from train.dtype float32"]),
        ({"runtime.processes": 7}, ["train.global_batch_pairs", "runtime.processes = 7"]),
        ({"render.max_tokens": 1000}, ["nothing is left of the question"]),
        ({"tokenize.max_prompt_tokens": 2048}, ["must be below max_tokens"]),
        ({"prepare.test": "train.jsonl"}, ["test pairs must be other pairs"]),
        ({"model.judge": {"source": "hub", "name": "a/b"}}, ["needs `revision`"]),
        ({"model.judge": {"source": "folder"}}, ["needs `name`"]),
        (
            {"train.beta": -1.0, "render.spans": "all", "runtime.x": 1},
            ["3 problem", "train.beta", "render.spans", "runtime.x"],
        ),
    ],
)
def test_each_problem_is_named_by_its_path(
    tmp_path: Path, root: Path, changes: dict[str, Any], messages: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_all(write(tmp_path, changes, root))
    for message in messages:
        assert message in f"{caught.value}\n"


@pytest.mark.parametrize(
    "changes",
    [
        {"extract.heads": "each", "postprocess.heads": [0, 7]},
        {"extract.heads": [3, 5, 1], "postprocess.heads": [1, 5]},
        {"extract.heads": [3, 5]},
        {"extract.source": "rollout", "postprocess.layer": 7},
    ],
)
def test_rows_that_will_be_cached_may_be_chosen(tmp_path: Path, root: Path, changes: dict[str, Any]) -> None:
    check_all(write(tmp_path, changes, root))


def test_exponents_without_a_point_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("train:\n  learning_rate: 1e-6\n")
    assert load_section(tmp_path / "params.yaml", "train", TrainParams).learning_rate == 1e-6


def test_zero_sink_tokens_means_no_sink_fix(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("postprocess:\n  sink_tokens: 0\n  sink_min_tokens: 1\n")
    assert load_section(tmp_path / "params.yaml", "postprocess", PostprocessParams).sink_tokens == 0


@pytest.mark.parametrize("text", ["- 1\n", "a: [", "just text"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"params\.yaml"):
        check_all(tmp_path / "params.yaml")


def test_a_missing_file_says_where_stages_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; stages run in the folder"):
        check_all(tmp_path / "params.yaml")


@pytest.mark.parametrize("name", profile_names(ROOT / "profiles"))
def test_profiles_are_valid_over_the_committed_params(name: str, root: Path) -> None:
    check_params(merged(read_params(root / "params.yaml"), read_profile(root / "profiles", name)), name)


def test_a_model_that_is_no_mapping_is_named_by_its_path() -> None:
    problems, _ = validate({"model": {"positive": "oracle"}}, "model", ModelParams)
    assert [problem.split(": ")[0] for problem in problems] == ["model.positive", "model.positive.literal['start']"]

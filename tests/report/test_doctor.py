"""`make doctor` finds what would fail, all of it, and loads no weights."""

import json
import shutil
from math import prod
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from safetensors import safe_open
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from pipeline.errors import ConfigError
from pipeline.report.doctor import examine
from tests.models import tiny

LORA = {"rank": 4, "alpha": 8, "target_modules": "all-linear", "use_rslora": False, "merge": False}


@pytest.fixture
def project(tmp_path: Path, root: Path, default_model_dir: Path) -> Path:
    shutil.copytree(root / "data" / "sample", tmp_path / "data" / "sample")
    shutil.copy(root / "params.yaml", tmp_path)
    change(tmp_path, {"model.judge": {"source": "folder", "name": str(default_model_dir)}})
    return tmp_path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the layers of the default one, whose files are digested at once."""
    folder = tmp_path_factory.mktemp("models") / "small"
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=36,
        intermediate_size=48,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = tiny.byte_level()
    tokenizer.chat_template = tiny.LLAMA3
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def quick(project: Path, small: Path) -> Path:
    """The project with a small judge and start."""
    change(project, {"model.judge": {"source": "folder", "name": str(small)}})
    return project


def change(project: Path, changes: dict[str, Any]) -> None:
    yaml = YAML()
    params = yaml.load((project / "params.yaml").read_text())
    for key, value in changes.items():
        section, name = key.split(".")
        params[section][name] = value
    with (project / "params.yaml").open("w") as stream:
        yaml.dump(params, stream)


def errors(project: Path) -> list[str]:
    return [finding.text for finding in examine(project) if finding.level == "error"]


def test_nothing_stands_in_the_way_of_the_sample(project: Path) -> None:
    assert errors(project) == []


def test_every_problem_is_found_not_only_the_first(quick: Path) -> None:
    change(
        quick,
        {
            "extract.layers": [29, 30],
            "extract.heads": [0, 9],
            "prepare.test": "nowhere.jsonl",
            "tokenize.max_tokens": 9000,
        },
    )
    found = errors(quick)
    assert len(found) == 4
    assert "no file nowhere.jsonl" in found[0]
    assert "`extract.layers` asks for [30], but the judge has 30 layers" in found[1]
    assert "`extract.heads` asks for [9], but the judge's layers have 9 heads" in found[2]
    assert "model.start: " in found[3]
    assert "reads 8192 tokens, and tokenize.max_tokens is 9000; lower tokenize.max_tokens" in found[3]


def test_a_layer_that_only_the_judge_s_depth_shows_to_be_missing(quick: Path) -> None:
    change(quick, {"extract.layers": [0, 14], "postprocess.layer": -1})
    [error] = errors(quick)
    assert "postprocess.layer: -1 of the judge's 30 layers is not cached: extract.layers come to [0, 14]" in error


def test_heads_that_the_judge_lacks_are_named_before_they_are_cached(quick: Path) -> None:
    change(quick, {"extract.heads": "each", "postprocess.heads": [0, 9]})
    [error] = errors(quick)
    assert "postprocess.heads: [9] not cached; there are rows of heads [0, 1, 2, 3, 4, 5, 6, 7, 8]" in error


def test_rollout_looks_at_no_layer(quick: Path) -> None:
    change(quick, {"extract.source": "rollout", "extract.layers": [99]})
    assert errors(quick) == []


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A judge whose attention cannot be read, with few tokens of context."""
    folder = tmp_path / "foreign"
    GPT2LMHeadModel(GPT2Config(n_embd=8, n_head=2, n_layer=1, n_positions=64, vocab_size=400)).save_pretrained(folder)
    tokenizer = tiny.sentencepiece_bpe(legacy=True)
    tokenizer.chat_template = tiny.LLAMA3
    tokenizer.save_pretrained(folder)
    return folder


def judged_by(project: Path, folder: Path, small: Path, source: str) -> None:
    change(
        project,
        {
            "model.judge": {"source": "folder", "name": str(folder)},
            "model.start": {"source": "folder", "name": str(small)},
            "weights.source": source,
        },
    )


@pytest.mark.parametrize("source", ["verbalized", "uniform"])
def test_only_a_judge_whose_attention_is_read_must_be_one_that_can_be_read(
    quick: Path, foreign: Path, small: Path, source: str
) -> None:
    change(quick, {"extract.layers": [99], "postprocess.layer": 99, "extract.heads": [0, 99]})
    judged_by(quick, foreign, small, "judge")
    assert [error.split(" ")[0] for error in errors(quick)] == [
        "attention",
        "`extract.layers`",
        "`extract.heads`",
        "model.judge:",
    ]
    change(quick, {"weights.source": source})
    assert errors(quick) == []


def test_a_judge_that_writes_needs_a_chat_template(quick: Path, foreign: Path, small: Path) -> None:
    (foreign / "chat_template.jinja").unlink()
    judged_by(quick, foreign, small, "uniform")
    assert errors(quick) == []
    change(quick, {"weights.source": "verbalized"})
    [error] = errors(quick)
    assert "model.judge.chat_template" in error


def test_a_judge_that_writes_by_vllm_is_checked_as_one(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(runtime: Any, config: Any, device: Any) -> None:
        raise ConfigError(f"{runtime.backend} and {config.model_type}")

    change(quick, {"weights.source": "verbalized", "runtime.backend": "vllm"})
    monkeypatch.setattr("pipeline.report.doctor.check_engine", refuse)
    assert errors(quick) == ["vllm and llama"]
    change(quick, {"weights.source": "uniform"})
    assert errors(quick) == []


@pytest.mark.parametrize("role", ["judge", "positive", "negative"])
def test_models_that_nobody_asks_must_be_there_for_the_stage_model(quick: Path, small: Path, role: str) -> None:
    change(quick, {"weights.source": "uniform", "model.start": {"source": "folder", "name": str(small)}})
    change(quick, {f"model.{role}": {"source": "folder", "name": "nowhere"}})
    [error] = errors(quick)
    assert f"model.{role}.name" in error


def test_a_contrasted_model_of_another_tokenizer_is_named(quick: Path, foreign: Path) -> None:
    change(quick, {"weights.source": "critical", "model.positive": {"source": "folder", "name": str(foreign)}})
    [error] = errors(quick)
    assert error.startswith("model.positive: foreign has another tokenizer than model.start")


def parameters(folder: Path) -> int:
    with safe_open(folder / "model.safetensors", "np") as file:
        return sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"extract": 2, "train": 16}),
        ({"extract.dtype": "float32", "runtime.workers": 3}, {"extract": 12, "train": 16}),
        ({"weights.source": "uniform"}, {"train": 16}),
        ({"weights.source": "gradient"}, {"score": 2, "train": 16}),
        ({"weights.source": "gradient", "score.dtype": "float32"}, {"score": 4, "train": 16}),
        ({"weights.source": "verbalized", "runtime.workers": 2}, {"score": 4, "train": 16}),
        ({"weights.source": "contrast"}, {"score": 2, "train": 16}),
        ({"weights.source": "contrast", "score.contrast": {"models": "given"}}, {"score": 4, "train": 16}),
        ({"weights.source": "critical"}, {"score": 4, "train": 16}),
        ({"weights.source": "uniform", "train.objective": "tidpo"}, {"third": 4, "train": 16}),
        (
            {
                "weights.source": "uniform",
                "train.objective": "kto",
                "reference.dtype": "bfloat16",
                "train.dtype": "bfloat16",
            },
            {"third": 2, "train": 18},
        ),
        ({"weights.source": "uniform", "train.objective": "tdpo1"}, {"train": 20}),
        ({"weights.source": "uniform", "train.objective": "tdpo1", "runtime.processes": 2}, {"train": 24}),
        ({"weights.source": "uniform", "train.objective": "tdpo1", "train.lora": LORA}, {"train": 4}),
        ({"weights.source": "uniform", "train.objective": "tisdpo"}, {"train": 20}),
        # What a weight of 0 leaves without a part is not held.
        ({"weights.source": "uniform", "train.objective": "tisdpo", "train.settings": {"alpha": 0.0}}, {"train": 16}),
        ({"weights.source": "uniform", "train.objective": "tidpo", "train.settings": {"gamma": 0.0}}, {"train": 16}),
        ({"weights.source": "contrast", "weights.contrast": {"transform": "random"}}, {"train": 16}),
    ],
)
def test_memory_of_the_models_that_source_and_objective_need(
    quick: Path,
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    expected: dict[str, float],
) -> None:
    other = {"source": "folder", "name": f"{small}/."}
    change(quick, {"runtime.device": "cpu", "model.positive": other} | changes)
    # Bytes per parameter, so.
    monkeypatch.setattr("pipeline.report.doctor.GIB", parameters(small))
    found = list(examine(quick))
    assert not [finding.text for finding in found if finding.level == "error"]
    words = [finding.text.split() for finding in found if finding.text.startswith("memory:")]
    assert {line[1]: float(line[3]) for line in words} == expected


def set_gold(project: Path, row: int, gold: str) -> None:
    path = project / "data" / "sample" / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[row]["gold"] = gold
    path.write_text("".join(json.dumps(line) + "\n" for line in rows))


def test_an_objective_with_a_third_response_needs_one_in_the_data(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(quick, {"weights.source": "uniform", "train.objective": "tpo"})
    [error] = errors(quick)
    assert "train.objective: tpo" in error
    assert "none of the first 107 rows of prepare.train" in error
    set_gold(quick, 1, " ")
    assert len(errors(quick)) == 1
    set_gold(quick, 5, "Gold.")
    assert errors(quick) == []
    change(quick, {"prepare.limit": 5})
    assert "none of the first 5 rows" in errors(quick)[0]
    change(quick, {"prepare.limit": None})
    monkeypatch.setattr("pipeline.report.doctor.GOLD_ROWS", 5)
    # Rows that were not looked at may have one.
    assert errors(quick) == []
    assert any(of.level == "warning" and "none of the first 5 rows" in of.text for of in examine(quick))
    change(quick, {"train.objective": "simpo"})
    assert errors(quick) == []


def test_invalid_params_are_all_listed(project: Path) -> None:
    change(project, {"train.beta": -1, "evaluate.confidence": 3.0})
    assert len(errors(project)) == 1
    assert "train.beta" in errors(project)[0]
    assert "evaluate.confidence" in errors(project)[0]


def test_a_missing_model_folder_is_named(quick: Path) -> None:
    change(quick, {"model.judge": {"source": "folder", "name": "nowhere"}})
    assert any("model.judge.name" in error for error in errors(quick))

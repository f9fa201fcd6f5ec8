"""`profiles/paper-llama3.yaml` holds Table 6 of the paper, and every key of the sections it names."""

import shutil
from pathlib import Path

import pytest

from pipeline.config.check import check_all
from pipeline.config.load import read_params
from pipeline.config.profile import apply_profile

UNUSED = {"folder", "gradient", "contrast", "critical", "decay", "random"}
"""Beside `prepare.hub`, and beside weights.source: judge."""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    repository = Path(__file__).resolve().parents[2]
    shutil.copy(repository / "params.yaml", tmp_path)
    shutil.copytree(repository / "profiles", tmp_path / "profiles")
    return tmp_path


def test_table_6(copy: Path) -> None:
    apply_profile(copy, "paper-llama3")
    sections = check_all(copy / "params.yaml")
    tokenize, train = sections["tokenize"], sections["train"]
    assert (tokenize.max_tokens, tokenize.max_prompt_tokens) == (2048, 1800)
    assert (train.learning_rate, train.beta, train.global_batch_pairs, train.epochs) == (1e-6, 5e-3, 32, 1)
    assert (train.warmup_ratio, train.eval_every_steps) == (0.1, 500)
    assert sections["model"].start_ref.name == "princeton-nlp/Llama-3-Base-8B-SFT"
    assert sections["prepare"].hub.id == "HuggingFaceH4/ultrafeedback_binarized"


def test_no_key_of_its_sections_is_left_to_what_params_held_before(copy: Path) -> None:
    apply_profile(copy, "paper-llama3")
    sections = check_all(copy / "params.yaml")
    for name, values in read_params(copy / "profiles" / "paper-llama3.yaml").items():
        known = set(type(sections[name]).model_fields)
        assert known - set(values) <= UNUSED, name

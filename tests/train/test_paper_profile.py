"""`profiles/paper-llama3.yaml` holds Table 6 of the paper, and every key of its sections; ablations differ in one."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.check import check_all
from pipeline.config.profile import apply_profile, profile_names, read_profile
from pipeline.config.weights import WeightsParams
from tests.conftest import ROOT

FOLDER = ROOT / "profiles"
UNUSED = {"prepare": {"folder"}, "score": {"dtype"}}
"""Beside `prepare.hub`, and what no judge's attention takes."""


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
    for name, values in read_profile(copy / "profiles", "paper-llama3").items():
        known = set(type(sections[name]).model_fields)
        assert known - set(values) <= UNUSED.get(name, set()), name


def changed(name: str, of: str) -> dict[str, Any]:
    """What a profile has otherwise than another one, by path."""
    found, base = (flat(read_profile(FOLDER, one)) for one in (name, of))
    assert set(base) <= set(found)
    return {path: value for path, value in found.items() if value != base.get(path)}


def flat(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{where}{key}.") if isinstance(value, Mapping) else {f"{where}{key}": value}
    return found


INSTRUCT, SFT = "meta-llama/Meta-Llama-3-8B-Instruct", "princeton-nlp/Llama-3-Base-8B-SFT"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("rollout", {"extract.source": "rollout"}),
        (
            "verbalized",
            {
                "weights.source": "verbalized",
                "train.epochs": 5,
                "train.eval_every_steps": 10_111 // 32 + 1,
                "train.checkpoint_every_steps": 10_111 // 32 + 1,
            },
        ),
        ("attn-sink", {"postprocess.sink_tokens": 0}),
        ("len-norm", {"train.objective": "twdpo_length_normalized", "train.beta": 2.0}),
        *[(f"layer-{layer}", {"postprocess.layer": layer - 1}) for layer in (1, 8, 16, 24)],
    ],
)
def test_an_ablation_of_the_paper_differs_in_one_thing(name: str, wanted: dict[str, Any]) -> None:
    """Tables 4 and 5, Figure 3: with the beta, the layers and the data of the run that they are compared with."""
    assert changed(f"paper-llama3-instruct-{name}", "paper-llama3-instruct") == wanted


def test_attention_of_the_other_model() -> None:
    """Appendix F.2, Table 11: the judge is the other model, the start stays."""
    for name, judge, start in (
        ("paper-llama3-instruct-attn-from-sft", SFT, INSTRUCT),
        ("paper-llama3-attn-from-instruct", INSTRUCT, SFT),
    ):
        values = read_profile(FOLDER, name)
        assert values["model"]["judge"]["name"] == judge
        assert values["model"]["start"] == {"source": "hub", "name": start, "revision": "main", "chat_template": None}


@pytest.mark.parametrize("name", [name for name in profile_names(FOLDER) if name.startswith("paper-llama3-")])
def test_every_run_of_the_paper_is_valid_on_top_of_any_method(name: str, copy: Path) -> None:
    apply_profile(copy, "ti-dpo-code")
    apply_profile(copy, name)
    sections = check_all(copy / "params.yaml")
    assert sections["postprocess"].layer in sections["extract"].layers
    assert (sections["train"].learning_rate, sections["train"].optimizer) == (1e-6, "adamw")
    assert sections["weights"] == WeightsParams(source=sections["weights"].source)

"""The model card: read by the hub's own library, the same for the same run, and silent about pairs and machine."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from ruamel.yaml import YAML
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from pipeline.config.train import TrainParams
from pipeline.models.manifest import Manifest
from pipeline.train.card import write_card
from pipeline.train.run import run_training
from tests.train.tiny import make_job

INPUTS = {name: name[0] * 64 for name in ("tokens", "aligned", "reference", "model")}
SUMMARY: dict[str, Any] = {
    "pairs": 61135,
    "validation_pairs": 0,
    "steps": 1910,
    "kept_step": 1500,
    "first_tenth": {"loss": 0.693147, "rewards/margins": 1.5e-5},
    "last_tenth": {"loss": 0.5, "rewards/margins": 0.25},
    "validation": {},
}
HUB = Manifest("start", "hub", Path("/cache/snapshots/abc"), "meta/Model-8B", "abc", {"config.json": "0"}, {})
LORA = {"rank": 24, "alpha": 32}


def card(folder: Path, start: Manifest = HUB, **params: Any) -> ModelCard:
    write_card(folder, TrainParams(**params), {"inputs": INPUTS, "code": "c" * 64}, start, SUMMARY)
    return ModelCard.load(folder / "README.md", ignore_metadata_errors=False)


def block(text: str, language: str) -> str:
    return text.split(f"```{language}\n")[1].split("```")[0]


def test_the_hub_reads_its_head(tmp_path: Path) -> None:
    assert card(tmp_path).data.to_dict() == {
        "library_name": "transformers",
        "base_model": "meta/Model-8B",
        "base_model_relation": "finetune",
        "pipeline_tag": "text-generation",
        "tags": ["attentionpo", "dpo", "preference-optimization"],
    }
    local = replace(HUB, source="folder", repo=None, revision=None, path=Path("/home/someone/my`model\n---"))
    text = card(tmp_path, local)
    assert "base_model" not in text.data.to_dict()
    assert "# Policy trained from my'model ---\n" in text.content
    assert "someone" not in text.content


def test_params_digests_and_figures_are_there(tmp_path: Path) -> None:
    content = card(tmp_path, learning_rate=1e-5, max_steps=None).content
    params = YAML(typ="safe").load(block(content, "yaml"))
    assert params == {"train": TrainParams(learning_rate=1e-5).model_dump()}
    for name in ("tokens", "aligned", "reference"):
        assert f"| {name} | `{INPUTS[name]}` |" in content
    assert f"| start | `{HUB.digest}` |" in content
    assert "61,135 pairs, 0 for validation; 1,910 steps of 32 pairs, of which step 1,500 was kept." in content
    assert "| loss | 0.6931 | 0.5 |  |\n| rewards/margins | 1.5e-05 | 0.25 |  |\n" in content


def test_an_adapter_names_its_start(tmp_path: Path) -> None:
    made = card(tmp_path, lora=LORA)
    head = made.data.to_dict()
    assert (head["library_name"], head["base_model_relation"]) == ("peft", "adapter")
    assert "lora" in head["tags"]
    assert "vllm serve meta/Model-8B --enable-lora --max-lora-rank 32 " in made.content
    compile(block(made.content, "python"), "card", "exec")
    merged = card(tmp_path, lora={**LORA, "merge": True})
    assert merged.data.to_dict()["library_name"] == "transformers"
    assert "vllm serve models/policy\n" in merged.content


def test_a_policy_s_card_and_folder(root: Path, start: Manifest, tmp_path_factory: pytest.TempPathFactory) -> None:
    job = make_job(root, start, {"max_steps": 4})
    summary = run_training(job).summary
    folder = job.work / "policy"
    text = (folder / "README.md").read_text()
    assert f"| loss | {summary['first_tenth']['loss']:.4g} | {summary['last_tenth']['loss']:.4g} |" in text
    assert f" {summary['validation']['loss']:.4g} |\n" in text
    for private in (str(root), str(start.path.parent), "pair-0-"):
        assert private not in text

    elsewhere = replace(job, work=tmp_path_factory.mktemp("elsewhere"))
    run_training(elsewhere)
    assert (elsewhere.work / "policy" / "README.md").read_text() == text

    # What the card says about loading is true.
    loading = block(text, "python").replace("models/policy", str(folder))
    names: dict[str, Any] = {}
    exec(loading, names)
    assert isinstance(names["model"], type(AutoModelForCausalLM.from_pretrained(start.path)))
    ids = names["tokenizer"].apply_chat_template(
        [{"role": "user", "content": "w5 w6"}], return_tensors="pt", return_dict=True
    )
    assert names["model"].generate(**ids, max_new_tokens=2, do_sample=False).shape[0] == 1
    assert GenerationConfig.from_pretrained(folder)
    assert (
        AutoTokenizer.from_pretrained(folder).chat_template == AutoTokenizer.from_pretrained(start.path).chat_template
    )

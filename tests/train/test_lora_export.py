"""The folder that a training of adapters leaves: an adapter for peft, transformers and evaluation, or a whole model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.errors import ModelError
from pipeline.evaluate.models import load_policy
from pipeline.models.load import load_model
from pipeline.models.logps import LogProbModel
from pipeline.models.manifest import Manifest
from pipeline.train.precision import DTYPES, ComputeWeights
from pipeline.train.run import run_training
from tests.train.lora import LEARN, LINEAR, LORA, logps, rough, training
from tests.train.tiny import TEMPLATE, make_job, save_start

__all__ = ["rough"]
CPU = torch.device("cpu")


def both(root: Path, work: Path, start: Manifest, params: dict[str, Any]) -> tuple[Path, Path]:
    """The folders that one run leaves with `merge` off, and then, finished already, with `merge` on."""
    job = replace(make_job(root, start, {**LEARN, "max_steps": 4, **params}), work=work)
    run_training(job)
    adapter = (job.work / "policy").rename(work / "adapter")
    merged = job.params.lora.model_copy(update={"merge": True}) if job.params.lora else None
    run_training(replace(job, params=job.params.model_copy(update={"lora": merged})))
    return adapter, job.work / "policy"


@pytest.mark.parametrize("lora", [{}, {"use_rslora": True, "target_modules": ["v_proj", "down_proj"]}], ids=str)
def test_the_adapter_loads_everywhere_and_is_the_merged_model(
    root: Path, start: Manifest, lora: dict[str, Any]
) -> None:
    adapter, merged = both(root, root / "work", start, {"lora": {**LORA, **lora}})
    ids = torch.arange(2, 32)[None]
    whole = AutoModelForCausalLM.from_pretrained(merged)
    assert load_file(merged / "model.safetensors").keys() == load_file(start.path / "model.safetensors").keys()
    assert not {item.name for item in merged.iterdir()} & {"adapter_config.json", "adapter_model.safetensors"}
    by_peft = PeftModel.from_pretrained(load_model(start, "float32", CPU), adapter)
    by_transformers = AutoModelForCausalLM.from_pretrained(adapter)
    with torch.no_grad():
        expected = whole(ids).logits
        assert (expected - load_model(start, "float32", CPU)(ids).logits).abs().max() > 0.05
        for model in (by_peft, by_transformers, load_policy(adapter, start, "float32", CPU)):
            assert torch.allclose(model(ids).logits, expected, atol=2e-5)
    theirs = by_peft.merge_and_unload().state_dict()
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, theirs[name], atol=1e-6), name

    names = {item.name for item in adapter.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "generation_config.json"} <= names
    assert not names & {"model.safetensors", "config.json"}
    assert AutoTokenizer.from_pretrained(adapter).chat_template == TEMPLATE
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(start.path)
    assert config["target_modules"] == sorted(lora.get("target_modules", LINEAR))
    assert config["use_rslora"] == lora.get("use_rslora", False)


def test_an_adapter_of_a_hub_model_names_the_repository(root: Path, start: Manifest) -> None:
    hub = replace(start, source="hub", repo="owner/name", revision="0123abc")
    job = make_job(root, hub, {**LEARN, "max_steps": 1})
    run_training(job)
    config = json.loads((job.work / "policy" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("owner/name", "0123abc")


def test_a_bfloat16_merge_is_made_in_float32_and_rounded_once(tmp_path: Path, rough: Path, start: Manifest) -> None:
    adapter, merged = both(rough, tmp_path, start, {"dtype": "bfloat16"})
    assert {value.dtype for value in load_file(adapter / "adapter_model.safetensors").values()} == {torch.float32}
    base = load_model(start, "bfloat16", CPU).float()
    theirs = PeftModel.from_pretrained(base, adapter).merge_and_unload().state_dict()
    assert json.loads((merged / "config.json").read_text())["dtype"] == "bfloat16"
    for name, value in load_file(merged / "model.safetensors").items():
        assert torch.equal(value, theirs[name].bfloat16()), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_evaluation_computes_the_policy_as_training_did(
    root: Path, rough: Path, tmp_path: Path, start: Manifest, dtype: str
) -> None:
    where = root if dtype == "float32" else rough
    job = replace(make_job(where, start, {**LEARN, "max_steps": 4, "dtype": dtype}), work=tmp_path / "work")
    with training(job) as made, ComputeWeights(made.policy, DTYPES[dtype]).standing_in():
        expected = logps(made.policy)
    run_training(job)
    policy = load_policy(job.work / "policy", start, dtype, CPU)
    assert not policy.training
    assert torch.equal(logps(LogProbModel(policy)), expected)
    assert (expected - logps(LogProbModel(load_model(start, dtype, CPU)))).abs().max() > 0.05


def test_evaluation_loads_a_whole_policy(root: Path, start: Manifest) -> None:
    job = make_job(root, start, {"max_steps": 1})
    run_training(job)
    assert load_policy(job.work / "policy", start, "float32", CPU).dtype == torch.float32
    with pytest.raises(ModelError, match="holds no model; train it"):
        load_policy(root, start, "float32", CPU)


def test_an_adapter_that_does_not_fit_its_start_is_refused(root: Path, start: Manifest, tmp_path: Path) -> None:
    job = make_job(root, start, {**LEARN, "max_steps": 1})
    run_training(job)
    folder = job.work / "policy"
    weights = load_file(folder / "adapter_model.safetensors")
    for broken, message in (
        (dict(list(weights.items())[1:]), "missing adapter keys"),
        ({name: value[:-1] for name, value in weights.items()}, "size mismatch"),
    ):
        save_file(broken, folder / "adapter_model.safetensors")
        with pytest.raises(ModelError, match=rf"does not fit the start in .*({message})"):
            load_policy(folder, start, "float32", CPU)
    (folder / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match="does not fit the start"):
        load_policy(folder, start, "float32", CPU)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds no adapter_model\.safetensors; train it again"):
        load_policy(folder, start, "float32", CPU)


GENERATION = {
    "own": {"eos_token_id": [1, 3], "temperature": 0.6, "top_p": 0.9, "do_sample": True, "transformers_version": "4.9"},
    "one that transformers does not save": {"temperature": 0.6, "do_sample": False},
}


@pytest.mark.parametrize("lora", [None, LORA, {**LORA, "merge": True}], ids=["whole", "adapter", "merged"])
@pytest.mark.parametrize("name", GENERATION)
def test_the_generation_config_is_the_start_s(
    root: Path, tmp_path_factory: pytest.TempPathFactory, name: str, lora: dict[str, Any] | None
) -> None:
    start = save_start(tmp_path_factory.mktemp("other"))
    content = json.dumps(GENERATION[name])
    (start.path / "generation_config.json").write_text(content)
    run_training(make_job(root, start, {"max_steps": 1, "lora": lora}))
    assert (root / "work" / "policy" / "generation_config.json").read_text() == content

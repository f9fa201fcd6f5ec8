"""Loading from a manifest: whole, local, and nothing executed."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma3Config, GPT2Config, MambaConfig

from pipeline.config.model import ModelRef
from pipeline.errors import ModelError
from pipeline.models.load import context_length, load_config, load_model, load_tokenizer
from pipeline.models.manifest import Manifest
from pipeline.models.resolve import resolve
from tests.models import tiny


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    tiny.model("llama").save_pretrained(tmp_path / "mine")
    tiny.byte_level().save_pretrained(tmp_path / "mine")
    return resolve(ModelRef(source="folder", name="mine"), "judge", tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_load_model(manifest: Manifest, dtype: str) -> None:
    model = load_model(manifest, dtype, "cpu")
    assert {str(parameter.dtype) for parameter in model.parameters()} == {f"torch.{dtype}"}
    assert not model.training
    assert model.config._attn_implementation == "sdpa"
    assert model.lm_head.weight is model.model.embed_tokens.weight
    torch.testing.assert_close(
        model.float().model.layers[0].mlp.up_proj.weight,
        tiny.model("llama").model.layers[0].mlp.up_proj.weight,
        atol=1e-2,
        rtol=1e-2,
    )


def test_load_model_eager(manifest: Manifest) -> None:
    assert load_model(manifest, "float32", "cpu", attn_implementation="eager").config._attn_implementation == "eager"


def test_missing_weights_are_an_error(manifest: Manifest) -> None:
    file = manifest.path / "model.safetensors"
    weights = load_file(file)
    del weights["model.norm.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 parameters of its architecture \(model\.norm\.weight"):
        load_model(manifest, "float32", "cpu")


def test_weights_of_another_shape_are_an_error(manifest: Manifest) -> None:
    config = json.loads((manifest.path / "config.json").read_text())
    (manifest.path / "config.json").write_text(json.dumps(config | {"intermediate_size": 47}))
    with pytest.raises(ModelError, match="judge model"):
        load_model(manifest, "float32", "cpu")


def test_torn_weights_are_an_error(manifest: Manifest) -> None:
    file = manifest.path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(manifest, "float32", "cpu")


def test_load_tokenizer(manifest: Manifest) -> None:
    assert load_tokenizer(manifest).eos_token == "</s>"
    (manifest.path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="tokenizer of the judge model"):
        load_tokenizer(manifest)


def test_context_length(manifest: Manifest) -> None:
    assert context_length(load_config(manifest)) == 64
    assert context_length(GPT2Config(n_positions=77)) == 77
    assert context_length(Gemma3Config(text_config={"max_position_embeddings": 99})) == 99
    with pytest.raises(ModelError, match="a mamba model names no context length"):
        context_length(MambaConfig())


def test_a_config_with_a_wrong_value_is_an_error(manifest: Manifest) -> None:
    config = json.loads((manifest.path / "config.json").read_text())
    (manifest.path / "config.json").write_text(json.dumps(config | {"hidden_size": "wide"}))
    with pytest.raises(ModelError, match="configuration of the judge model"):
        load_config(manifest)

"""Opening a backend from a model folder."""

import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.attention.backend import JudgePrompt
from pipeline.attention.backends import open_backend
from pipeline.config.extract import ExtractParams
from pipeline.config.runtime import RuntimeParams
from pipeline.errors import ModelError
from pipeline.models.manifest import Manifest

CPU = torch.device("cpu")


def manifest(folder):
    return Manifest(role="judge", source="folder", path=folder, repo=None, revision=None, files={}, sizes={})


@pytest.fixture
def judge(tmp_path, byte_level, with_template):
    """A folder with a tiny Llama judge."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    with_template(byte_level()).save_pretrained(tmp_path)
    return manifest(tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_opens_a_judge_from_its_folder(judge, dtype):
    backend = open_backend(RuntimeParams(), ExtractParams(layers=[0, -1], dtype=dtype), judge, CPU)
    assert backend.layers == (0, 2)
    (judgement,) = backend.run([JudgePrompt([5, 6, 7, 8], ((1, 3),))])
    assert {layer: [scores.shape for scores in spans] for layer, spans in judgement.rows.items()} == {
        0: [(1, 2)],
        2: [(1, 2)],
    }
    assert 0 < judgement.verdict.prob_a < 1


def test_an_architecture_is_refused_before_weights_are_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt_oss"}))
    with pytest.raises(ModelError, match="`gpt_oss`"):
        open_backend(RuntimeParams(), ExtractParams(), manifest(tmp_path), CPU)


def test_a_layer_is_refused_before_weights_are_read(judge):
    (judge.path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"`extract\.layers`"):
        open_backend(RuntimeParams(), ExtractParams(layers=[3]), judge, CPU)

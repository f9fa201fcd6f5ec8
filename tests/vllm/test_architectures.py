"""Every architecture that vLLM computes on the CPU, tiny and random, in float32, against the transformers backend.

Heads of 32, the smallest that vLLM's CPU kernel takes. Prompts are longer than the windows and than a block.
"""

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from pipeline.attention.backend import JudgePrompt
from tests.vllm.references import assert_same, by_transformers

SHAPE = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CONFIGS = {
    "llama": lambda: LlamaConfig(**SHAPE, rope_parameters=LLAMA3_ROPE, attention_bias=True),
    "mistral": lambda: MistralConfig(**SHAPE, sliding_window=40),
    "mistral-full": lambda: MistralConfig(**SHAPE, sliding_window=None),
    "qwen2": lambda: Qwen2Config(**(SHAPE | {"hidden_size": 128})),
    "qwen3": lambda: Qwen3Config(**SHAPE),
    "gemma2": lambda: Gemma2Config(
        **SHAPE,
        query_pre_attn_scalar=24,
        sliding_window=40,
        attn_logit_softcapping=3.0,
        final_logit_softcapping=2.0,
    ),
    "gemma3_text": lambda: Gemma3TextConfig(
        **SHAPE, query_pre_attn_scalar=24, sliding_window=40, sliding_window_pattern=3
    ),
    "phi3": lambda: Phi3Config(**(SHAPE | {"hidden_size": 128})),
    "phi3-sliding": lambda: Phi3Config(**(SHAPE | {"hidden_size": 128}), sliding_window=40),
}


def saved(name, folder):
    """A model whose attention is far from uniform."""
    torch.manual_seed(sorted(CONFIGS).index(name))
    model = AutoModelForCausalLM.from_config(CONFIGS[name](), dtype=torch.float32)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
            if parameter_name.endswith(("q_norm.weight", "k_norm.weight")):
                parameter.mul_(2)
    model.save_pretrained(folder)
    return folder


def prompts_with_common_beginnings():
    rng = np.random.default_rng(7)
    header = rng.integers(3, 256, 70).tolist()
    return [
        JudgePrompt(header + rng.integers(3, 256, length).tolist(), ((0, 70 + length), (60, 75)), f"of {70 + length}")
        for length in (100, 7, 35, 60, 128, 26)
    ]


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_transformers(name, opened, tmp_path):
    folder = saved(name, tmp_path)
    prompts = prompts_with_common_beginnings()
    choices = {"layers": [0, 1, 2, 3], "heads": "each"}
    expected = by_transformers(folder, prompts, **choices)
    widest = max(row.max() for one in expected for spans in one.rows.values() for row in spans)
    assert widest > 0.2, "near uniform: proves little"
    backend = opened(folder, token_budget=128, vllm_kv_cache_gib=0.01, **choices)
    assert_same(backend.run(prompts), expected, atol=1e-5)
    assert backend.usage.computed_tokens < backend.usage.prompt_tokens
    assert_same(backend.run(prompts[::-1]), expected[::-1], atol=1e-5)

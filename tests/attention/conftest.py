"""Tiny judges of every supported architecture, with weights large enough that attention is far from uniform."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

VOCABULARY = 61
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0, 1.5],
    "long_factor": [4.0, 9.0],
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
SLIDING = {"use_sliding_window": True, "sliding_window": 11, "max_window_layers": 1}
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**SHAPE),
    "llama3-rope": lambda: LlamaConfig(**SHAPE, rope_parameters=LLAMA3_ROPE, attention_bias=True),
    "mistral": lambda: MistralConfig(**SHAPE, sliding_window=10),
    "mistral-full": lambda: MistralConfig(**SHAPE, sliding_window=None, head_dim=6),
    "qwen2": lambda: Qwen2Config(**SHAPE),
    "qwen2-sliding": lambda: Qwen2Config(**SHAPE, **SLIDING),
    "qwen3": lambda: Qwen3Config(**SHAPE, head_dim=10),
    "qwen3-sliding": lambda: Qwen3Config(**SHAPE, head_dim=6, **SLIDING),
    "gemma2": lambda: Gemma2Config(
        **SHAPE,
        head_dim=10,
        query_pre_attn_scalar=7,
        sliding_window=9,
        attn_logit_softcapping=3.0,
        final_logit_softcapping=2.0,
    ),
    "gemma3_text": lambda: Gemma3TextConfig(
        **SHAPE,
        head_dim=6,
        query_pre_attn_scalar=9,
        sliding_window=9,
        sliding_window_pattern=3,
        final_logit_softcapping=3.0,
    ),
    "phi3": lambda: Phi3Config(**SHAPE),
    "phi3-sliding": lambda: Phi3Config(**SHAPE, sliding_window=12),
    "phi3-longrope": lambda: Phi3Config(**SHAPE, rope_parameters=LONGROPE, original_max_position_embeddings=24),
}

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TURN_TOKENS = ["<|im_start|>", "<|im_end|>", "[INST]", "[/INST]", "<think>"]

TinyModel = Callable[..., PreTrainedModel]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_model() -> TinyModel:
    """tiny_model(name, implementation): the same weights for the same name at every call."""

    def build(name: str, implementation: str = "sdpa", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        torch.manual_seed(sorted(CONFIGS).index(name))
        model = AutoModelForCausalLM.from_config(
            CONFIGS[name](), attn_implementation=implementation, dtype=torch.float32
        )
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                parameter.add_(0.4 * torch.randn_like(parameter))
                if parameter_name.endswith(("q_norm.weight", "k_norm.weight")):
                    parameter.mul_(3)  # normed states would attend almost evenly
        return model.to(dtype).eval()

    return build


@pytest.fixture(scope="session")
def with_template() -> Callable[[Tokenizer, str | None], PreTrainedTokenizerFast]:
    """with_template(tokenizer, template): a transformers tokenizer with the special tokens of turns."""

    def build(tokenizer: Tokenizer, template: str | None = CHATML) -> PreTrainedTokenizerFast:
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
        fast.add_special_tokens({"additional_special_tokens": TURN_TOKENS})
        fast.chat_template = template
        return fast

    return build


@pytest.fixture(scope="session")
def byte_level() -> Callable[[], Tokenizer]:
    """byte_level(): a byte-level BPE tokenizer that knows " A" and " B" as well as "A" and "B"."""

    def build() -> Tokenizer:
        tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ĠA", "ĠB"]
        merges = [("Ġ", "A"), ("Ġ", "B")]
        tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer

    return build

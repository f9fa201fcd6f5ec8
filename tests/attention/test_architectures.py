"""Which judges are refused, and what their configs say."""

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForSequenceClassification,
    Phi3Config,
    Qwen2Config,
)

from pipeline.attention.architectures import (
    SUPPORTED,
    check_architecture,
    check_model,
    resolve_layers,
)
from pipeline.errors import ModelError
from pipeline.models.rope import longrope_boundaries

ONE_LAYER = {
    "vocab_size": 20,
    "hidden_size": 16,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
}


@pytest.mark.parametrize("model_type", sorted(SUPPORTED))
def test_known_architectures_pass(model_type):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **ONE_LAYER))
    check_model(model)


@pytest.mark.parametrize(
    ("model_type", "settings", "reason"),
    [
        ("gpt_oss", {}, "attention sinks"),
        ("bloom", {}, "ALiBi"),
        ("mpt", {}, "ALiBi"),
        ("falcon", {"alibi": True}, "ALiBi"),
        ("deepseek_v2", {}, "multi-head latent attention"),
        ("deepseek_v3", {}, "multi-head latent attention"),
        ("gemma3n_text", {}, "layers that share keys"),
        ("llama4_text", {}, "chunked attention"),
        ("gpt2", {}, "its attention has not been checked"),
        ("gemma3", {}, "its attention has not been checked"),
    ],
)
def test_other_attention_is_refused_by_name(model_type, settings, reason):
    config = AutoConfig.for_model(model_type, **settings)
    with pytest.raises(ModelError, match=rf"`{model_type}` \({reason}\).*`model\.judge`"):
        check_architecture(config)


def test_another_head_is_refused():
    with torch.device("meta"):
        model = LlamaForSequenceClassification(LlamaConfig(**ONE_LAYER))
    with pytest.raises(ModelError, match="LlamaForSequenceClassification, not transformers' LlamaForCausalLM"):
        check_model(model)


@pytest.mark.parametrize(
    "config",
    [
        Gemma2Config(**ONE_LAYER, use_bidirectional_attention=True),
        Gemma3TextConfig(**ONE_LAYER, use_bidirectional_attention=True),
    ],
    ids=["gemma2", "gemma3_text"],
)
def test_bidirectional_attention_is_refused(config):
    with pytest.raises(ModelError, match="bidirectional"):
        check_architecture(config)


def test_other_layer_types_are_refused():
    config = Qwen2Config(**ONE_LAYER, layer_types=["chunked_attention"])
    with pytest.raises(ModelError, match="chunked_attention"):
        check_architecture(config)


def test_layers_count_from_either_end():
    assert resolve_layers([-1, 0, 2, -4], 4) == (0, 2, 3)


@pytest.mark.parametrize("layers", [[4], [-5], [0, 7], []])
def test_layers_outside_the_model_name_the_param(layers):
    with pytest.raises(ModelError, match=r"`extract\.layers`"):
        resolve_layers(layers, 4)


def test_longrope_boundaries():
    rope = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0] * 4,
        "long_factor": [2.0] * 4,
    }
    phi = Phi3Config(**ONE_LAYER, rope_parameters=rope, original_max_position_embeddings=24)
    assert longrope_boundaries(phi) == {24}
    assert longrope_boundaries(LlamaConfig(**ONE_LAYER)) == frozenset()
    assert longrope_boundaries(Gemma3TextConfig(**ONE_LAYER)) == frozenset()

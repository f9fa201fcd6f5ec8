"""A GGUF file of the Llama family as a plain transformers folder, dequantized to float32.

Reads the two quantizations that the packaged model holds (and whatever else the `gguf` package can dequantize); the
result needs neither that package nor the GGUF file to load. Names and shapes follow llama.cpp's
`convert_hf_to_gguf.py`, whose permutation of query and key rows is undone here.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

from pipeline.errors import ModelError

_CONTROL_TOKEN = 3  # llama.cpp's enum `llama_token_type`

_LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTER_TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def convert(gguf_file: Path, folder: Path) -> None:
    """Write config, weights, generation config and tokenizer of `gguf_file` into the existing `folder`.

    float32, because a dequantized value `d * q + m` (float16 scale and minimum) has more significant bits than bfloat16
    or float16 keep: any other type would round the model a second time, and a load in bfloat16 can still do so.

    Raises ModelError when the file is not a Llama with a byte-level BPE of the `smollm` kind.
    """
    from gguf import GGUFReader  # only needed to convert, never to load the result

    reader = GGUFReader(gguf_file)
    meta = {name: field.contents() for name, field in reader.fields.items()}
    kind = (meta["general.architecture"], meta["tokenizer.ggml.model"], meta.get("tokenizer.ggml.pre"))
    if kind != ("llama", "gpt2", "smollm"):
        raise ModelError(f"{gguf_file.name}: this converter knows SmolLM files only, not {'/'.join(map(str, kind))}.")
    weights = _weights(reader, int(meta["llama.attention.head_count"]), int(meta["llama.attention.head_count_kv"]))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = _config(meta, tied="lm_head.weight" not in weights)
    config.save_pretrained(folder)
    GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    ).save_pretrained(folder)
    _tokenizer(meta).save_pretrained(folder)


def _config(meta: dict[str, Any], tied: bool) -> LlamaConfig:
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(meta["tokenizer.ggml.tokens"]),
        hidden_size=meta["llama.embedding_length"],
        intermediate_size=meta["llama.feed_forward_length"],
        num_hidden_layers=meta["llama.block_count"],
        num_attention_heads=meta["llama.attention.head_count"],
        num_key_value_heads=meta["llama.attention.head_count_kv"],
        max_position_embeddings=meta["llama.context_length"],
        # Stored as float32: the shortest decimal that rounds to it is what the model's authors wrote.
        rms_norm_eps=float(str(np.float32(meta["llama.attention.layer_norm_rms_epsilon"]))),
        rope_parameters={"rope_type": "default", "rope_theta": float(meta["llama.rope.freq_base"])},
        bos_token_id=meta["tokenizer.ggml.bos_token_id"],
        eos_token_id=meta["tokenizer.ggml.eos_token_id"],
        pad_token_id=meta["tokenizer.ggml.padding_token_id"],
        tie_word_embeddings=tied,
        dtype="float32",
    )


def _weights(reader: Any, heads: int, kv_heads: int) -> dict[str, torch.Tensor]:
    """Every tensor of the file as float32 under its transformers name."""
    from gguf.quants import dequantize

    weights: dict[str, torch.Tensor] = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        if ".attn_q." in tensor.name:
            values = _undo_rotary_order(values, heads)
        elif ".attn_k." in tensor.name:
            values = _undo_rotary_order(values, kv_heads)
        weights[_transformers_name(tensor.name)] = torch.from_numpy(np.array(values, dtype=np.float32))
    return weights


def _transformers_name(name: str) -> str:
    if name in _OUTER_TENSORS:
        return _OUTER_TENSORS[name]
    try:
        block, layer, tensor, suffix = name.split(".")
        if block == "blk":
            return f"model.layers.{int(layer)}.{_LAYER_TENSORS[tensor]}.{suffix}"
    except (ValueError, KeyError):
        pass
    raise ModelError(f"The GGUF file holds a tensor {name!r} that a Llama model does not have.")


def _undo_rotary_order(rows: np.ndarray, heads: int) -> np.ndarray:
    """GGUF interleaves the two rotary halves of every head; transformers keeps them one after the other.

    rows[heads * head_dim, hidden] -> the same shape.
    """
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def _tokenizer(meta: dict[str, Any]) -> PreTrainedTokenizerFast:
    """Byte-level BPE with single digits (llama.cpp's pre-tokenizer `smollm`) and the file's own chat template."""
    tokens: list[str] = meta["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in meta["tokenizer.ggml.merges"]]
    backend = Tokenizer(tokenizer_models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    control = [t for t, kind in zip(tokens, meta["tokenizer.ggml.token_type"], strict=True) if kind == _CONTROL_TOKEN]
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=tokens[meta["tokenizer.ggml.bos_token_id"]],
        eos_token=tokens[meta["tokenizer.ggml.eos_token_id"]],
        unk_token=tokens[meta["tokenizer.ggml.unknown_token_id"]],
        pad_token=tokens[meta["tokenizer.ggml.padding_token_id"]],
        chat_template=meta["tokenizer.chat_template"],
        model_max_length=meta["llama.context_length"],
        clean_up_tokenization_spaces=False,
    )

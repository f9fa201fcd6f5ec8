"""A GGUF file as a transformers folder, against transformers' own GGUF reader."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.errors import ModelError
from pipeline.models.gguf_to_folder import convert
from tests.models import tiny


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tiny.write_gguf(file)
    return file


@pytest.fixture(scope="module")
def folder(gguf_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("converted")
    convert(gguf_file, made)
    return made


def test_weights_are_those_that_transformers_reads(gguf_file: Path, folder: Path) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32)
    ours, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name]), name
    assert ours.lm_head.weight is ours.model.embed_tokens.weight
    ids = torch.arange(20)[None]
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, atol=1e-4, rtol=1e-4)


def test_config(folder: Path) -> None:
    config = AutoModelForCausalLM.from_pretrained(folder).config
    assert config.rms_norm_eps == 1e-5
    assert config.rope_parameters["rope_theta"] == 100_000.0
    assert config.max_position_embeddings == 128
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 2)


def test_tokenizer_splits_digits_before_anything_else(folder: Path) -> None:
    """As llama.cpp's pre-tokenizer `smollm`: the newlines before a digit stay together, digits never do."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.tokenize("\n\n12 a") == ["ĊĊ", "1", "2", "Ġ", "a"]
    assert tokenizer.tokenize("\n\na") == ["Ċ", "Ċ", "a"]
    assert tokenizer("<|im_start|>a<|im_end|>")["input_ids"] == [1, tokenizer.convert_tokens_to_ids("a"), 2]
    assert tokenizer.decode(tokenizer("é 🎉 \n\n1")["input_ids"]) == "é 🎉 \n\n1"
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )
    assert "im_start" in tokenizer.chat_template


def test_loads_without_the_gguf_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    AutoModelForCausalLM.from_pretrained(folder)
    AutoTokenizer.from_pretrained(folder)


def test_converting_twice_gives_the_same_bytes(gguf_file: Path, folder: Path, tmp_path: Path) -> None:
    convert(gguf_file, tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }


def test_another_architecture_is_refused(gguf_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(gguf_file.read_bytes().replace(b"smollm", b"other!"))
    with pytest.raises(ModelError, match=r"other\.gguf: this converter knows SmolLM files only, not llama/gpt2/other!"):
        convert(other, tmp_path)

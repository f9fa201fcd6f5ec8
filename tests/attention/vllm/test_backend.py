"""What the backend does around vLLM, with an engine of these tests in its place."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from pipeline.attention.backend import Judgement, JudgePrompt, Usage
from pipeline.attention.vllm import backend as vllm_backend
from pipeline.attention.vllm.backend import VllmBackend
from pipeline.attention.vllm.check import COMPARED
from pipeline.attention.vllm.engine import Answer, VllmEngine
from pipeline.config.extract import ExtractParams
from pipeline.config.runtime import RuntimeParams
from pipeline.errors import ModelError
from pipeline.models.manifest import Manifest

CACHED = 2
"""Tokens of every prompt that the engine says it had in its cache."""
LAYER_WEIGHTS = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96
PROMPTS = [JudgePrompt([3, 4, 5, *range(10 + length)], ((0, 2),), f"of {length}") for length in range(12)]


class Engine:
    """Scores and probabilities of its own; `calls` tells what it was asked for."""

    context = 512

    def __init__(self):
        self.calls = []

    def answer(self, requests, on_finished=None):
        self.calls.append([len(request.prompt_ids) for request in requests])
        if on_finished is not None:
            on_finished(len(requests))
        rows = {0: [np.ones((1, 2), dtype=np.float32)]}
        return [Answer(rows if request.spans else {}, (-1.0, -2.0), 7, CACHED) for request in requests]

    def reset_prefix_cache(self):
        self.calls.append("reset")

    def close(self):
        self.calls.append("close")


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """opened(score=of the reference, device=..., **params and runtime): (backend, the engines that it starts)."""
    shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64}
    LlamaConfig(**shape, intermediate_size=96, vocab_size=256, max_position_embeddings=512).save_pretrained(tmp_path)
    judge = Manifest(role="judge", source="folder", path=tmp_path, repo=None, revision=None, files={}, sizes={})
    engines = []

    def build(score=1.0, device="cpu", tensor_parallel=1, **params):
        reference = [Judgement({0: [np.full((1, 2), score, dtype=np.float32)]})] * COMPARED
        monkeypatch.setattr(
            vllm_backend, "TransformersBackend", lambda *_, **__: SimpleNamespace(run=lambda of: reference[: len(of)])
        )
        monkeypatch.setattr(vllm_backend, "load_model", lambda *_: None)
        monkeypatch.setattr(VllmBackend, "_start", lambda self: engines.append(Engine()) or engines[-1])
        runtime = RuntimeParams(backend="vllm", tensor_parallel=tensor_parallel)
        params = ExtractParams(layers=[0], dtype="float32", **params)
        return VllmBackend(judge, params, runtime, torch.device(device), (50, 51)), engines

    return build


def test_every_run_judges_all_its_prompts_with_an_empty_cache(opened):
    """The first prompts too, which were compared before."""
    backend, engines = opened()
    for prompts in (PROMPTS, PROMPTS[:3]):
        done = []
        assert len(backend.run(prompts, done.append)) == sum(done) == len(prompts)
    lengths = [len(prompt.input_ids) for prompt in PROMPTS]
    assert engines[0].calls == [lengths[:COMPARED], "reset", lengths, "reset", lengths[:3]]


def test_tokens_and_operations_are_those_of_the_run_alone(opened):
    """Operations counted one position and one key at a time; heads of 16."""
    backend, _ = opened()
    backend.run(PROMPTS)
    lengths = [len(prompt.input_ids) for prompt in PROMPTS]
    assert backend.usage == Usage(sum(lengths), sum(lengths) - CACHED * len(lengths), operations(lengths))


def test_two_passes_count_a_prompt_once(opened):
    backend, engines = opened(query="verdict_token_row")
    backend.run(PROMPTS[:2])
    lengths = [len(prompt.input_ids) for prompt in PROMPTS[:2]]
    longer = [length + 1 for length in lengths]
    assert engines[0].calls == [lengths, longer, "reset", lengths, longer]
    assert backend.usage == Usage(
        sum(lengths), sum(lengths) + sum(longer) - CACHED * 4, operations(lengths) + operations(longer)
    )


def operations(lengths):
    count = 0
    for length in lengths:
        for position in range(CACHED, length):
            products, mixed = ([2 * 4 * 16] * (position + 1) for _ in range(2))
            count += 2 * (2 * LAYER_WEIGHTS + sum(products) + sum(mixed))
        count += 2 * 64 * 256
    return count


def test_a_failed_comparison_is_made_again(opened):
    backend, engines = opened(score=2.0)
    for tried in (1, 2):
        with pytest.raises(ModelError, match=r"layer 0 differs"):
            backend.run(PROMPTS)
        assert len(engines) == tried
        assert engines[-1].calls[-1] == "close"
    assert backend.usage == Usage()


@pytest.mark.parametrize(
    ("device", "ranks", "loaded_on"), [("cuda", 2, "cpu"), ("cuda", 1, "cuda"), ("cpu", 2, "cpu"), ("cpu", 1, "cpu")]
)
def test_a_judge_of_several_devices_is_compared_on_the_cpu(device, ranks, loaded_on, opened, monkeypatch, caplog):
    backend, _ = opened(device=device, tensor_parallel=ranks)
    loaded = []
    monkeypatch.setattr(vllm_backend, "load_model", lambda manifest, *how: loaded.append(how))
    with caplog.at_level(logging.INFO, logger="stages.extract"):
        backend.run(PROMPTS)
    assert loaded == [("float32", torch.device(loaded_on))]
    assert ("transformers judges the first 8 prompts on the CPU" in caplog.text) == (loaded_on != device)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA: tried to allocate 2 GiB"),
        RuntimeError("Worker failed with error 'CUDA out of memory'"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("a size does not match"),
    ],
)
def test_memory_that_runs_out_has_remedies(error):
    engine, aborted = VllmEngine.__new__(VllmEngine), []

    def step():
        raise error

    engine._submitted = 0
    engine._engine = SimpleNamespace(
        has_unfinished_requests=lambda: True, step=step, abort_request=lambda ids: aborted.append(ids)
    )
    engine._submit = lambda *_: None
    remedies = r"out of memory.*runtime\.token_budget.*runtime\.gpu_memory_utilization.*runtime\.vllm_kv_cache_gib"
    expected, message = (RuntimeError, "does not match") if "size" in str(error) else (ModelError, remedies)
    with pytest.raises(expected, match=message):
        engine.answer([None, None])
    assert aborted == [["0", "1"]]

"""What must not pass: rows of another layer or position, missing keys, scores that are no numbers, prompts too long."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.attention.backend import JudgePrompt
from pipeline.attention.vllm import backend as vllm_backend
from pipeline.attention.vllm import capture as vllm_capture
from pipeline.errors import ConfigError, DataError, ModelError, NonFiniteError
from tests.vllm.test_architectures import CONFIGS, prompts_with_common_beginnings, saved


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_of_the_layer_below_end_the_run(dtype, opened, sample_prompts, monkeypatch):
    wanted_layers = vllm_capture.wanted_layers

    def one_below(worker, layers, num_layers):
        problems, found = wanted_layers(worker, [layer - 1 for layer in layers], num_layers)
        return problems, {index + 1: module for index, module in found.items()}

    monkeypatch.setattr(vllm_capture, "wanted_layers", one_below)
    with pytest.raises(
        ModelError, match=r"judge prompt \d \(pair .*layer 14 differs.*`runtime\.backend: transformers`"
    ):
        opened(layers=[14], dtype=dtype).run(sample_prompts)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_of_the_position_before_end_the_run(dtype, opened, sample_prompts, monkeypatch):
    finishing = vllm_capture._Capture._finishing
    monkeypatch.setattr(
        vllm_capture._Capture,
        "_finishing",
        lambda self: [(row, last - 1, wanted) for row, last, wanted in finishing(self)],
    )
    with pytest.raises(ModelError, match=r"layer 29 differs"):
        opened(layers=[29], dtype=dtype).run(sample_prompts)


def test_a_missing_key_is_an_error_and_the_next_prompts_are_not(opened, tmp_path, monkeypatch):
    """The prefix cache keeps the header, the mirror is told to have forgotten it."""
    prompts = prompts_with_common_beginnings()
    backend = opened(saved("llama", tmp_path), layers=[1, 2])
    expected = backend.run(prompts)
    backend._engine._llm.collective_rpc(forget)
    with monkeypatch.context() as patched:
        patched.setattr(backend._engine, "reset_prefix_cache", lambda: None)
        with pytest.raises(ModelError, match=r"\(of \d+\): layer 1: keys of the prompt are missing"):
            backend.run(prompts)
    again = backend.run(prompts)
    assert [one.verdict for one in again] == [one.verdict for one in expected]


def forget(worker):
    for group in worker._attention_rows.groups.values():
        group.written_for.zero_()


@pytest.mark.parametrize("where", ["model.layers.2.self_attn.k_proj.bias", "model.norm.weight"])
def test_a_score_that_is_no_number_names_the_prompt(where, opened, tmp_path, monkeypatch):
    """Past the comparison with transformers, which would name it first."""
    folder = saved("llama", tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights[where].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr(vllm_backend.VllmBackend, "_by_transformers", lambda self, prompts: [])
    monkeypatch.setattr(vllm_backend, "compare", lambda *_: None)
    with pytest.raises(NonFiniteError, match=r"judge prompt \d \(of \d+\): .* not finite"):
        opened(folder, layers=[2]).run(prompts_with_common_beginnings())


def test_prompts_that_do_not_fit(opened, tmp_path):
    folder = saved("llama", tmp_path)
    backend = opened(folder, layers=[0])
    for prompt, error, message in (
        (JudgePrompt([5] * 512, ((0, 1),)), ModelError, "512 tokens and 1 more to read.*ends at 512"),
        (JudgePrompt([5, 256], ((0, 1),)), ModelError, "outside the judge's 256 embeddings"),
        (JudgePrompt([], ()), DataError, "holds no token"),
        (JudgePrompt([5, 6], ((0, 3),)), DataError, "outside its 2 tokens"),
    ):
        with pytest.raises(error, match=message):
            backend.run([prompt])
    assert backend._engine is None, "refused before vLLM starts"
    longest = JudgePrompt([5] * 511, ((0, 511),))
    assert backend.run([longest])[0].rows[0][0].sum() == pytest.approx(1)
    small = opened(folder, layers=[0], vllm_kv_cache_gib=8 * 32 * 4 * 2 * 2 * 32 * 4 / 2**30)
    with pytest.raises(ModelError, match=r"cache holds \d+ tokens, but a judge prompt needs 512.*vllm_kv_cache_gib"):
        small.run([longest])


def test_judges_that_are_refused_before_work(opened, tmp_path):
    qwen = saved("qwen2", tmp_path)
    with pytest.raises(ConfigError, match=r"`runtime\.tensor_parallel: 3` does not divide.*4 heads"):
        opened(qwen, layers=[0], tensor_parallel=3)
    with pytest.raises(ModelError, match=r"`extract\.layers` asks for \[4\]"):
        opened(qwen, layers=[4])
    with pytest.raises(ConfigError, match="rollout"):
        opened(qwen, layers=[0], source="rollout")
    CONFIGS["qwen2"]().save_pretrained(qwen)
    (qwen / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        opened(qwen, layers=[0]).run([JudgePrompt([5, 6, 7], ((0, 2),))])


def test_the_worker_refuses_what_it_does_not_know(opened, tmp_path, monkeypatch):
    """The architecture is checked before vLLM starts; the worker looks at the layers that really run."""
    wanted_layers = vllm_capture.wanted_layers

    def changed(worker, layers, num_layers):
        modules = worker.vllm_config.compilation_config.static_forward_context
        first = next(iter(modules.values()))
        first.impl.sinks = torch.zeros(4)
        first.impl.alibi_slopes = torch.zeros(4)
        first.kv_sharing_target_layer_name = "another"
        return wanted_layers(worker, layers, num_layers)

    monkeypatch.setattr(vllm_capture, "wanted_layers", changed)
    folder = saved("llama", tmp_path)
    with pytest.raises(ModelError, match=r"layer 0: ALiBi; layer 0: attention sinks; layer 0: it shares another"):
        opened(folder, layers=[0, 1]).run(prompts_with_common_beginnings())

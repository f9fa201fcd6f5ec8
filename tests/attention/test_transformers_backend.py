"""Rows and verdicts against transformers' own eager attention, one prompt at a time, batched or not."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from pipeline.attention.backend import JudgePrompt
from pipeline.attention.transformers_backend import TransformersBackend
from pipeline.errors import DataError, ModelError, NonFiniteError

MODELS = [
    "llama",
    "llama3-rope",
    "mistral",
    "mistral-full",
    "qwen2",
    "qwen2-sliding",
    "qwen3",
    "qwen3-sliding",
    "gemma2",
    "gemma3_text",
    "phi3",
    "phi3-sliding",
    "phi3-longrope",
]
LENGTHS = [30, 7, 41, 1, 24, 23, 40, 25]
A, B = 7, 11
LAYERS = [0, 1, 2, 3]


def make_prompts(lengths=LENGTHS, vocabulary=61):
    rng = np.random.default_rng(3)
    return [
        JudgePrompt(rng.integers(0, vocabulary, length).tolist(), ((0, length), (length // 3, length // 2)))
        for length in lengths
    ]


def backend(model, **changes):
    settings = {"layers": LAYERS, "verdict_ids": (A, B), "token_budget": 128} | changes
    return TransformersBackend(model, **settings)


@torch.no_grad()
def eager_judgement(model, prompt, query, verdict_ids=(A, B)):
    """All layers' last rows, and the full softmax, from `output_attentions=True`."""
    ids = list(prompt.input_ids)
    output = model(torch.tensor([ids]), output_attentions=True, use_cache=False)
    probs = output.logits[0, -1].float().softmax(-1)
    if query == "verdict_token_row":
        ids.append(verdict_ids[0] if probs[verdict_ids[0]] >= probs[verdict_ids[1]] else verdict_ids[1])
        output = model(torch.tensor([ids]), output_attentions=True, use_cache=False)
    return [attention[0, :, -1].float().mean(0).numpy() for attention in output.attentions], probs.numpy()


def assert_equal(judgements, prompts, references, verdict_ids=(A, B), atol=1e-5):
    for judgement, prompt, (rows, probs) in zip(judgements, prompts, references, strict=True):
        for layer, spans in judgement.rows.items():
            for scores, (start, end) in zip(spans, prompt.spans, strict=True):
                assert scores.dtype == np.float32
                np.testing.assert_allclose(scores, rows[layer][None, start:end], atol=atol)
        assert judgement.verdict.prob_a == pytest.approx(probs[verdict_ids[0]], abs=atol)
        assert judgement.verdict.prob_b == pytest.approx(probs[verdict_ids[1]], abs=atol)
        assert judgement.verdict.top_token == probs.argmax()


@pytest.mark.parametrize("query", ["predicting_position", "verdict_token_row"])
@pytest.mark.parametrize("name", MODELS)
def test_equals_eager_batched_or_not(name, query, tiny_model):
    prompts = make_prompts()
    eager = tiny_model(name, "eager")
    references = [eager_judgement(eager, prompt, query) for prompt in prompts]
    assert max(row.max() for row in references[2][0]) > 5 / LENGTHS[2], "near uniform: proves little"
    model = tiny_model(name)
    for budget in (1, 100, 10_000):
        judgements = backend(model, token_budget=budget, query=query).run(prompts)
        assert_equal(judgements, prompts, references)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_any_choice_of_layers_costs_one_forward(name, tiny_model):
    model = tiny_model(name)
    prompts = make_prompts([12, 9])
    every = backend(model).run(prompts)
    calls = []
    model.base_model.register_forward_pre_hook(lambda *_: calls.append(1))
    some = backend(model, layers=[-1, 1])
    assert some.layers == (1, 3)
    for judgement, full in zip(some.run(prompts), every, strict=True):
        assert list(judgement.rows) == [1, 3]
        for layer in (1, 3):
            np.testing.assert_array_equal(judgement.rows[layer][0], full.rows[layer][0])
    assert len(calls) == 1


def test_progress_counts_every_prompt(tiny_model):
    done = []
    prompts = make_prompts()
    backend(tiny_model("llama"), token_budget=64).run(prompts, on_progress=done.append)
    assert len(done) > 1
    assert sum(done) == len(prompts)


def test_no_prompts(tiny_model):
    assert backend(tiny_model("llama")).run([]) == []


class Allocations(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation returned."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, tuple | list) else [output]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return output


@pytest.mark.parametrize(("name", "left_out"), [("llama", 1), ("qwen2-sliding", 0), ("gemma3_text", 0)])
def test_runs_under_sdpa_and_never_holds_an_attention_matrix(name, left_out, tiny_model, monkeypatch):
    """SDPA is held to its flash kernel, which raises where it would fall back to the full matrix. Where prefixes can be
    shared, the last layer needs a row alone."""
    model = tiny_model(name)
    model.config.max_position_embeddings = length = 600
    calls = []
    sdpa = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or sdpa(*a, **k)
    )
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]), Allocations() as allocations:
        backend(model, token_budget=1).run(make_prompts([length, length]))
    assert len(calls) == 2 * (model.config.num_hidden_layers - left_out)
    assert allocations.largest < model.config.num_attention_heads * length * length / 4


def test_the_head_runs_at_one_position(tiny_model):
    """No all-position logits: batch x length x vocabulary never exists."""
    model = tiny_model("llama")
    with Allocations() as allocations:
        backend(model, token_budget=10_000).run(make_prompts([40] * 8))
    assert allocations.largest < 8 * 40 * 61


def test_bfloat16_rows_are_float32_distributions(tiny_model):
    prompts = make_prompts()
    eager = tiny_model("qwen3", "eager", torch.bfloat16)
    references = [eager_judgement(eager, prompt, "predicting_position") for prompt in prompts]
    judgements = backend(tiny_model("qwen3", dtype=torch.bfloat16)).run(prompts)
    for judgement, (rows, _) in zip(judgements, references, strict=True):
        for layer in LAYERS:
            assert judgement.rows[layer][0].sum() == pytest.approx(1, abs=1e-6)
            np.testing.assert_allclose(judgement.rows[layer][0][0], rows[layer], atol=5e-2)


def test_a_prompt_beyond_the_context_is_refused_before_any_work(tiny_model):
    model = tiny_model("llama")
    model.base_model.register_forward_pre_hook(lambda *_: pytest.fail("worked before checking"))
    prompts = [*make_prompts([64, 64]), dataclasses.replace(make_prompts([65])[0], name="pair abc, round 2")]
    with pytest.raises(ModelError, match=r"judge prompt 2 \(pair abc, round 2\) has 65 tokens.*ends at 64"):
        backend(model).run(prompts)
    with pytest.raises(ModelError, match="judge prompt 0 has 64 tokens and 1 more"):
        backend(model, query="verdict_token_row").run(prompts)


@pytest.mark.parametrize(
    ("prompt", "error", "message"),
    [
        (JudgePrompt([], ()), DataError, "no token"),
        (JudgePrompt([3, 61], ()), ModelError, "outside the judge's 61 embeddings"),
        (JudgePrompt([3, -1], ()), ModelError, "outside the judge's 61 embeddings"),
        (JudgePrompt([3, 4], ((1, 3),)), DataError, "spans"),
        (JudgePrompt([3, 4], ((-1, 1),)), DataError, "spans"),
    ],
)
def test_prompts_that_do_not_fit_the_judge_are_refused(prompt, error, message, tiny_model):
    with pytest.raises(error, match=f"judge prompt 1 .*{message}"):
        backend(tiny_model("llama")).run([*make_prompts([3]), prompt])


def test_verdict_tokens_of_another_model_are_refused(tiny_model):
    with pytest.raises(ModelError, match="verdict tokens"):
        backend(tiny_model("llama"), verdict_ids=(7, 61))


def test_layers_outside_the_model_are_refused(tiny_model):
    with pytest.raises(ModelError, match=r"`extract\.layers`"):
        backend(tiny_model("llama"), layers=[4])


@pytest.mark.parametrize(
    ("parameter", "message"), [("lm_head.weight", "probability"), ("model.layers.1.self_attn.k_proj.weight", "layer 1")]
)
def test_a_value_that_is_not_finite_names_the_prompt(parameter, message, tiny_model):
    model = tiny_model("llama")
    prompts = [dataclasses.replace(prompt, name=f"pair {i}") for i, prompt in enumerate(make_prompts([5, 9]))]
    with torch.no_grad():
        dict(model.named_parameters())[parameter].fill_(float("nan"))
    if message == "layer 1":
        # The layers above would be NaN as well, and the verdict: look at the rows alone.
        model.model.layers[1].register_forward_hook(lambda _, args, out: torch.nan_to_num(out))
    with pytest.raises(NonFiniteError, match=rf"judge prompt 1 \(pair 1\): .*{message}"):
        backend(model).run(prompts)


def test_default_model_on_a_real_prompt(default_model_dir, default_tokenizer):
    text = "Compare the two answers to the question of which planet is the largest. " * 25
    ids = default_tokenizer(text, add_special_tokens=False)["input_ids"]
    prompts = [JudgePrompt(ids[:310], ((0, 310), (40, 90))), JudgePrompt(ids[:120], ((0, 120),))]
    settings = {"dtype": torch.float32, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(default_model_dir, attn_implementation="eager", **settings)
    letters = tuple(default_tokenizer.convert_tokens_to_ids(["A", "B"]))
    references = [eager_judgement(model, prompt, "predicting_position", letters) for prompt in prompts]
    layers = [0, 15, 29]
    judgements = backend(model, layers=layers, verdict_ids=letters, token_budget=1024).run(prompts)
    assert_equal(judgements, prompts, references, letters)

"""Shared prefixes give the rows and verdicts of eager attention, and compute no token twice."""

import logging

import numpy as np
import pytest
import torch

from pipeline.attention.backend import JudgePrompt
from pipeline.attention.forward.shared import SharedForward
from pipeline.errors import ModelError
from tests.attention.test_transformers_backend import assert_equal, backend, eager_judgement

SHARING = ["llama", "llama3-rope", "mistral-full", "qwen2", "qwen3", "phi3"]
WINDOWED = ["mistral", "qwen2-sliding", "qwen3-sliding", "gemma2", "gemma3_text", "phi3-sliding"]


def rounds(pairs=4, header=9, seed=0):
    """Judge prompts in pairs: a header of all, a question of both rounds, two endings."""
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 61, header).tolist()
    prompts = []
    for _ in range(pairs):
        question = [*start, *rng.integers(0, 61, int(rng.integers(8, 14))).tolist()]
        for _ in range(2):
            ids = [*question, *rng.integers(0, 61, int(rng.integers(1, 24))).tolist()]
            prompts.append(JudgePrompt(ids, ((0, len(ids)), (header - 2, len(question)))))
    return prompts, start


@pytest.fixture
def computed(monkeypatch):
    """Positions of every forward pass that shares prefixes."""
    seen = []
    run = SharedForward._run

    def counting(self, packed, *rest):
        seen.append(packed.input_ids.shape[1])
        return run(self, packed, *rest)

    monkeypatch.setattr(SharedForward, "_run", counting)
    return seen


@pytest.mark.parametrize("query", ["predicting_position", "verdict_token_row"])
@pytest.mark.parametrize("name", SHARING)
def test_equals_eager(name, query, tiny_model, computed):
    prompts, header = rounds()
    eager = tiny_model(name, "eager")
    references = [eager_judgement(eager, prompt, query) for prompt in prompts]
    for budget in (1, 40, 90, 10_000):
        for shared in (header, [], [*header[:-1], 60]):
            judgements = backend(tiny_model(name), token_budget=budget, query=query, header=shared).run(prompts)
            assert_equal(judgements, prompts, references)
    assert computed


@pytest.mark.parametrize("name", ["gemma2", "gemma3_text", "mistral", "phi3-sliding"])
def test_a_window_that_no_prompt_exceeds_does_not_stand_in_the_way(name, tiny_model, computed):
    prompts, header = rounds()
    longest = max(len(prompt.input_ids) for prompt in prompts)
    models = [tiny_model(name, kind) for kind in ("eager", "sdpa")]
    for model in models:
        model.config.sliding_window = longest
        for layer in model.model.layers:
            attention = layer.self_attn
            if getattr(attention, "sliding_window", None) is not None:
                attention.sliding_window = longest
    references = [eager_judgement(models[0], prompt, "predicting_position") for prompt in prompts]
    assert_equal(backend(models[1], header=header).run(prompts), prompts, references)
    assert computed


@pytest.mark.parametrize("name", [*WINDOWED, "phi3-longrope"])
def test_a_shorter_window_takes_the_plain_path_and_says_so_once(name, tiny_model, computed, caplog):
    prompts, header = rounds()
    judge = backend(tiny_model(name), header=header)
    with caplog.at_level(logging.INFO, logger="stages.extract"):
        judge.run(prompts)
        judge.run(prompts)
    assert not computed
    said = [record.message.split(":")[0] for record in caplog.records if record.name == "stages.extract"]
    assert said == ["prompts run whole, without shared prefixes, in shards like this one"]


def test_no_token_is_computed_twice(tiny_model, computed):
    prompts, header = rounds(pairs=6)
    judge = backend(tiny_model("llama"), header=header, token_budget=10_000)
    judge.run(prompts)
    judge.run(prompts)
    unique = len(header)
    for first, second in zip(prompts[::2], prompts[1::2], strict=True):
        question = first.spans[1][1]
        same = first.input_ids[question] == second.input_ids[question] and len(first.input_ids) > question + 1
        assert not same, "the endings must differ at once for this count"
        unique += question - len(header) + len(first.input_ids) + len(second.input_ids) - 2 * question
    assert computed == [len(header), unique - len(header), unique - len(header)]
    assert judge.usage.computed_tokens == 2 * unique - len(header)
    assert judge.usage.prompt_tokens == 2 * sum(len(prompt.input_ids) for prompt in prompts)


def test_layers_above_the_highest_wanted_one_are_not_run(tiny_model):
    prompts, header = rounds()
    model = tiny_model("llama")
    full = backend(model, layers=[0, 1], header=header, token_budget=10_000).run(prompts)
    ran = []
    for index, layer in enumerate(model.model.layers):
        layer.mlp.register_forward_pre_hook(lambda *_, index=index: ran.append(index))
    some = backend(model, layers=[1, 0], header=header, verdicts=False, token_budget=10_000).run(prompts)
    # Of layer 1 only keys, values and the queries' row are wanted; the header is computed once for all layers.
    assert ran.count(0) == 2
    assert (ran.count(1), ran.count(2)) == (1, 1)
    for judgement, other in zip(some, full, strict=True):
        assert judgement.verdict is None
        for layer in (0, 1):
            np.testing.assert_array_equal(judgement.rows[layer][0], other.rows[layer][0])


def test_the_last_layer_runs_at_the_last_positions_alone(tiny_model):
    prompts, header = rounds()
    model = tiny_model("llama")
    widths = []
    model.model.layers[-1].mlp.register_forward_pre_hook(lambda _, args: widths.append(args[0].shape[1]))
    backend(model, header=header, token_budget=10_000).run(prompts)
    assert widths == [len(prompts)]


@pytest.mark.parametrize("heads", ["each", [5, 2]])
def test_rows_per_head_equal_eager(heads, tiny_model):
    prompts, header = rounds(pairs=2)
    model = tiny_model("qwen3", "eager")
    judge = backend(tiny_model("qwen3"), heads=heads, header=header)
    assert judge.heads == (tuple(range(8)) if heads == "each" else (2, 5))
    for prompt, judgement in zip(prompts, judge.run(prompts), strict=True):
        with torch.no_grad():
            attentions = model(torch.tensor([prompt.input_ids]), output_attentions=True, use_cache=False).attentions
        for layer, spans in judgement.rows.items():
            for scores, (start, end) in zip(spans, prompt.spans, strict=True):
                expected = attentions[layer][0, list(judge.heads), -1, start:end].numpy()
                np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "mistral"])
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_halves_the_budget_and_goes_on(name, error, tiny_model, caplog):
    prompts, header = rounds(pairs=6)
    expected = backend(tiny_model(name), header=header).run(prompts)
    model = tiny_model(name)
    limit = 100

    def scarce(_, args, kwargs):
        if kwargs["input_ids"].numel() > limit:
            raise error

    model.base_model.register_forward_pre_hook(scarce, with_kwargs=True)
    judge = backend(model, header=header, token_budget=1000)
    done = []
    with caplog.at_level(logging.WARNING, logger="stages.extract"):
        judgements = judge.run(prompts, on_progress=done.append)
    assert sum(done) == len(prompts)
    assert [int(record.message.split("budget of ")[1].split(";")[0]) for record in caplog.records] == [
        500,
        250,
        125,
        62,
    ]
    for judgement, other in zip(judgements, expected, strict=True):
        np.testing.assert_allclose(judgement.rows[3][0], other.rows[3][0], atol=1e-5)


def test_a_prompt_that_does_not_fit_alone_is_named(tiny_model):
    prompts, header = rounds(pairs=1)
    model = tiny_model("llama")

    def scarce(_, args, kwargs):
        if kwargs["input_ids"].numel() > len(header):
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.base_model.register_forward_pre_hook(scarce, with_kwargs=True)
    with pytest.raises(ModelError, match=r"judge prompt [01] does not fit the memory of cpu even alone; lower"):
        backend(model, header=header).run(prompts)


def test_other_errors_are_not_taken_for_memory(tiny_model):
    model = tiny_model("llama")

    def broken(*_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    model.base_model.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="mat1"):
        backend(model).run(rounds()[0])


def test_a_layer_that_goes_around_the_registry_is_an_error(tiny_model):
    model = tiny_model("llama")
    prompts, header = rounds()
    model.model.layers[1].self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    with pytest.raises(ModelError, match=r"layers \[1\]"):
        backend(model, header=header).run(prompts)


def test_default_model_equals_eager_on_real_prompts(default_model_dir, shared_data):
    from transformers import AutoModelForCausalLM

    from benchmarks.workload import open_workload

    workload = open_workload("packaged", 20)
    # Both rounds of a pair are as long, so they stay together.
    prompts = sorted(workload.prompts, key=lambda prompt: len(prompt.input_ids))[:6]
    letters = workload.verdict_ids
    settings = {"dtype": torch.float32, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(default_model_dir, attn_implementation="eager", **settings)
    references = [eager_judgement(model, prompt, "predicting_position", letters) for prompt in prompts]
    judge = backend(model, layers=[0, 15, 29], verdict_ids=letters, token_budget=1024, header=workload.header)
    assert_equal(judge.run(prompts), prompts, references, letters)
    assert judge.usage.computed_tokens < 0.8 * judge.usage.prompt_tokens

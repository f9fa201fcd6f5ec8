"""Decoding in batches: the answers of transformers' own `generate` to one prompt at a time."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Phi3Config, PreTrainedModel, Qwen2Config

from pipeline.errors import ModelError, NonFiniteError
from pipeline.models.generation import batches
from pipeline.models.generation.base import Answer
from pipeline.models.generation.batches import TransformersGenerator
from pipeline.models.generation.decode import decode, most_likely
from tests.models import tiny

STOPS = frozenset({2, *range(5, 97, 5)})
LONGROPE = {"rope_type": "longrope", "rope_theta": 10_000.0, "short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
KINDS: dict[str, Callable[[], Any]] = tiny.CONFIGS | {
    "phi3-longrope": lambda: Phi3Config(**tiny._SHAPE, rope_parameters=LONGROPE, original_max_position_embeddings=14),
    "qwen2-sliding": lambda: Qwen2Config(**tiny._SHAPE, use_sliding_window=True, sliding_window=5, max_window_layers=1),
}


def build(kind: str, attention: str = "sdpa") -> PreTrainedModel:
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(KINDS[kind](), attn_implementation=attention)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
    return made.eval()


def prompts(count: int = 7, seed: int = 0, longest: int = 20) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(14, 97, (length,), generator=generator).tolist() for length in lengths]


def names(of: list[list[int]]) -> list[str]:
    return [f"prompt {index}" for index in range(len(of))]


def by_generate(model: PreTrainedModel, ids: list[int], limit: int) -> Answer:
    """One row, no padding."""
    said = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        do_sample=False,
        max_new_tokens=limit,
        eos_token_id=sorted(STOPS),
        pad_token_id=0,
    )[0, len(ids) :].tolist()
    return Answer(said[:-1], said[-1]) if said[-1] in STOPS else Answer(said, None)


@torch.inference_mode()
def by_recomputing(model: PreTrainedModel, ids: list[int], limit: int) -> Answer:
    """One row without a cache: what `generate` should write with longrope too, where it keeps keys that are stale."""
    said: list[int] = []
    while len(said) < limit:
        token = int(model(torch.tensor([ids + said]), use_cache=False).logits[0, -1].argmax())
        if token in STOPS:
            return Answer(said, token)
        said.append(token)
    return Answer(said, None)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_generate_row_by_row(kind: str) -> None:
    model, asked = build(kind), prompts()
    reference = by_recomputing if kind == "phi3-longrope" else by_generate
    # sdpa leaves Gemma 2's cap of attention scores out.
    expected = [reference(build(kind, "eager"), ids, 16) for ids in asked]
    assert len({len(answer.ids) for answer in expected}) > 1, "all answers end together: proves little"
    for budget in (1, 60, 100_000):
        generator = TransformersGenerator(model, STOPS, 16, tiny.budget(budget))
        assert generator.answers(asked, names(asked)) == expected, budget
    model.generation_config.update(do_sample=True, temperature=9.0, repetition_penalty=5.0, max_new_tokens=1)
    assert TransformersGenerator(model, STOPS, 16, tiny.budget(100_000)).answers(asked, names(asked)) == expected


def test_the_cap_of_attention_scores_counts_and_the_model_is_left_as_it_was() -> None:
    asked, (model, eager) = prompts(), (build("gemma2"), build("gemma2", "eager"))
    for one in (model, eager):
        for layer in one.model.layers:
            layer.self_attn.q_proj.weight.data.mul_(8)
    expected = [by_generate(eager, ids, 16) for ids in asked]
    assert expected != [by_generate(model, ids, 16) for ids in asked], "the cap changes nothing: proves little"
    assert TransformersGenerator(model, STOPS, 16, tiny.budget(100_000)).answers(asked, names(asked)) == expected
    assert model.config._attn_implementation == "sdpa"


def test_longrope_changes_what_is_written_beyond_its_boundary() -> None:
    """Otherwise the comparison above would say nothing about it."""
    model = build("phi3-longrope")
    asked = [ids for ids in prompts(40, seed=3, longest=14) if len(ids) in (12, 13, 14)][:4]
    expected = [by_recomputing(model, ids, 16) for ids in asked]
    assert TransformersGenerator(model, STOPS, 16, tiny.budget(100_000)).answers(asked, names(asked)) == expected
    wrong = [decode(model, [ids], ["a"], [16], STOPS, most_likely)[0] for ids in asked]
    assert wrong != expected


def test_every_row_stops_by_itself_and_finished_rows_are_not_computed() -> None:
    model, asked = build("llama"), prompts(6)
    computed: list[tuple[int, int]] = []
    hook = model.register_forward_pre_hook(
        lambda _, args, kwargs: computed.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    found = TransformersGenerator(model, STOPS, 16, tiny.budget(100_000)).answers(asked, names(asked))
    hook.remove()
    steps = [len(answer.ids) + (answer.stop is not None) for answer in found]
    assert computed[0] == (6, max(map(len, asked)))
    assert [rows for rows, _ in computed[1:]] == [sum(of > step for of in steps) for step in range(1, max(steps))]
    assert all(width == 1 for _, width in computed[1:])


def test_the_limit_and_the_context_cut() -> None:
    model, asked = build("llama"), [list(range(14, 14 + length)) for length in (60, 3, 63)]
    found = TransformersGenerator(model, (), 7, tiny.budget(100_000)).answers(asked, names(asked))
    assert [len(answer.ids) for answer in found] == [4, 7, 1]
    assert [answer.stop for answer in found] == [None] * 3
    longer = TransformersGenerator(model, (), 20, tiny.budget(100_000)).answers(asked, names(asked))
    assert longer[1].ids[:7] == found[1].ids


def test_a_stop_on_the_last_place_is_a_stop() -> None:
    model, asked = build("qwen3"), prompts(1, seed=5)
    free = TransformersGenerator(model, (), 6, tiny.budget(100_000)).answers(asked, names(asked))[0].ids
    last = free[5]
    assert last not in free[:5], "choose another seed"
    found = TransformersGenerator(model, {last}, 6, tiny.budget(100_000)).answers(asked, names(asked))
    assert found == [Answer(free[:5], last)]


@pytest.mark.parametrize(
    ("ids", "message"), [([], r"prompt 0: the prompt holds no token"), ([20] * 64, r"prompt 0 has 64 tokens.*reads 64")]
)
def test_prompts_that_leave_no_room_are_refused_by_name(ids: list[int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        TransformersGenerator(build("llama"), STOPS, 4, tiny.budget(100)).answers([ids], names([ids]))


def test_logits_that_are_no_numbers_name_the_prompt() -> None:
    model = build("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[50].fill_(float("nan"))
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    asked = [[20, 21], [22, 50], [23]]
    with pytest.raises(NonFiniteError, match=r"prompt 1: the model's logits are not numbers"):
        TransformersGenerator(model, STOPS, 4, tiny.budget(100_000)).answers(asked, names(asked))


def test_progress_counts_prompts_and_tokens() -> None:
    model, asked = build("llama"), prompts()
    told: list[tuple[int, int]] = []
    found = TransformersGenerator(model, STOPS, 5, tiny.budget(40)).answers(
        asked, names(asked), lambda *done: told.append(done)
    )
    assert len(told) > 1
    assert sum(count for count, _ in told) == len(asked)
    assert sum(tokens for _, tokens in told) == sum(map(len, asked)) + sum(len(answer.ids) for answer in found)


def test_out_of_memory_halves_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = build("llama"), prompts()
    expected = TransformersGenerator(model, STOPS, 5, tiny.budget(100_000)).answers(asked, names(asked))
    sizes = []

    def small(model: Any, rows: Any, *rest: Any) -> list[Answer]:
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(model, rows, *rest)

    monkeypatch.setattr(batches, "decode", small)
    assert TransformersGenerator(model, STOPS, 5, tiny.budget(200)).answers(asked, names(asked)) == expected
    assert max(sizes) > 2
    monkeypatch.setattr(batches, "decode", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("out of memory")))
    with pytest.raises(ModelError, match=r"prompt \d and its answer do not fit the memory of cpu even alone"):
        TransformersGenerator(model, STOPS, 5, tiny.budget(200)).answers(asked, names(asked))
    monkeypatch.setattr(batches, "decode", lambda *_: (_ for _ in ()).throw(RuntimeError("another one")))
    with pytest.raises(RuntimeError, match="another one"):
        TransformersGenerator(model, STOPS, 5, tiny.budget(200)).answers(asked, names(asked))

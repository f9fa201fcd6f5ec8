"""Third responses: the data's own, the start's samples, and other pairs' responses; who has none is refused."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from pipeline.config.runtime import RuntimeParams
from pipeline.config.third import ThirdParams
from pipeline.models.manifest import Manifest
from pipeline.train.third import Finder, Record, Third, ThirdRefused, open_third
from tests.train.tiny import VOCABULARY

CONTEXT, END = 128, 1
"""Of the tiny start: what it reads, and the token that ends a turn."""


def records(number: int, prompt: int = 5, seed: int = 0) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)

    def ids(length: int) -> list[int]:
        found: list[int] = random.integers(2, VOCABULARY, length).tolist()
        return found

    return [
        {
            "pair_id": f"pair-{index}",
            "prompt_ids": ids(prompt + index % 3),
            "chosen_ids": ids(4 + index),
            "rejected_ids": ids(9),
            "gold_ids": ids(6),
        }
        for index in range(number)
    ]


def finder(kind: str, start: Manifest, max_tokens: int = 64, **params: Any) -> Finder:
    runtime = RuntimeParams(device="cpu", threads=1, token_budget=96)
    return open_third(kind, start, ThirdParams(**params), max_tokens, "float32", runtime, torch.device("cpu"))


def found(find: Finder, of: Sequence[Record]) -> list[Third]:
    thirds = find(of, lambda pairs, tokens: None)
    assert all(isinstance(third, Third) for third in thirds)
    return [third for third in thirds if isinstance(third, Third)]


def responses(find: Finder, of: Sequence[Record]) -> dict[str, list[int]]:
    return {record["pair_id"]: list(third.ids) for record, third in zip(of, found(find, of), strict=True)}


def expected_logps(start: Manifest, record: Record, ids: Sequence[int]) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(start.path, attn_implementation="eager")
    whole = torch.tensor([[*record["prompt_ids"], *ids]])
    with torch.no_grad():
        logps = model(whole).logits[0, len(record["prompt_ids"]) - 1 : -1].log_softmax(-1)
    kept: np.ndarray = logps.gather(-1, torch.tensor(ids)[:, None])[:, 0].numpy()
    return kept


def test_gold_is_the_data_s_and_loads_no_model(start: Manifest, tmp_path: Path) -> None:
    rows = records(3)
    rows[1]["gold_ids"] = None
    told: list[int] = []
    find = finder("gold", replace(start, path=tmp_path / "no-model"))
    first, second, third = find(rows, lambda pairs, tokens: told.append(pairs))
    assert isinstance(second, ThirdRefused)
    assert second.reason == "no_gold"
    assert [(of.ids, of.logps) for of in (first, third) if isinstance(of, Third)] == [
        (rows[0]["gold_ids"], None),
        (rows[2]["gold_ids"], None),
    ]
    assert sum(told) == 3


def test_an_anchor_is_its_pair_s_alone(start: Manifest) -> None:
    """Neither the shard's other pairs, their order nor a second call change it; the seed does."""
    rows = records(9)
    find = finder("anchor", start, max_new_tokens=16)
    whole = responses(find, rows)
    assert len({tuple(ids) for ids in whole.values()}) == 9
    assert responses(find, rows) == whole
    assert responses(find, rows[::-1]) == whole
    assert responses(finder("anchor", start, max_new_tokens=16), rows[4:6]) == {
        row["pair_id"]: whole[row["pair_id"]] for row in rows[4:6]
    }
    assert responses(finder("anchor", start, max_new_tokens=16, seed=7), rows) != whole


def test_anchors_of_the_likeliest_token_are_greedy_decoding_s(start: Manifest) -> None:
    rows = records(4)
    model = AutoModelForCausalLM.from_pretrained(start.path)
    for row, third in zip(rows, found(finder("anchor", start, max_new_tokens=8, top_k=1), rows), strict=True):
        made = model.generate(torch.tensor([row["prompt_ids"]]), do_sample=False, max_new_tokens=8, eos_token_id=END)
        assert third.ids == made[0, len(row["prompt_ids"]) :].tolist()
        assert third.logps == pytest.approx(expected_logps(start, row, third.ids), abs=1e-5)


def test_the_end_of_turn_is_there_only_where_it_was_sampled(start: Manifest) -> None:
    rows = records(24)
    made = responses(finder("anchor", start, max_new_tokens=24, temperature=2.0, top_k=None, top_p=1.0), rows)
    ended = [ids for ids in made.values() if ids[-1] == END]
    assert 0 < len(ended) < len(made)
    for ids in made.values():
        assert END not in ids[:-1]
        assert ids[-1] == END or len(ids) == 24


@pytest.mark.parametrize(("max_tokens", "limit"), [(20, 20), (4096, CONTEXT)])
def test_an_anchor_ends_at_the_limit_and_a_prompt_without_room_is_refused(
    start: Manifest, max_tokens: int, limit: int
) -> None:
    short = limit - 3
    rows = [{"pair_id": f"pair-{size}", "prompt_ids": [2 + size % 60] * size} for size in (limit, 4, short, limit + 1)]
    full, free, near, over = finder("anchor", start, max_tokens, max_new_tokens=12)(rows, lambda pairs, tokens: None)
    for refused, size in ((full, limit), (over, limit + 1)):
        assert refused == ThirdRefused("no_room", f"its prompt has {size} tokens, of {limit} with a response")
    assert isinstance(free, Third)
    assert isinstance(near, Third)
    assert free.ids[-1] == END or len(free.ids) == 12
    assert near.logps is not None
    assert len(near.logps) == len(near.ids) == 3
    # Cut, and not another sample.
    [whole] = found(finder("anchor", start, short + 12, max_new_tokens=3), [rows[2]])
    assert near.ids == whole.ids


@pytest.mark.parametrize("kind", ["anchor", "kl_pairs"])
def test_every_batch_is_reported(kind: str, start: Manifest) -> None:
    """Sampling an anchor is half of a pair, its log-probs the other half: a shard of minutes shows movement."""
    told: list[tuple[float, int]] = []
    finder(kind, start, max_new_tokens=16)(records(9), lambda pairs, tokens: told.append((pairs, tokens)))
    assert sum(pairs for pairs, _ in told) == 9
    assert all(tokens > 0 for _, tokens in told)
    assert len(told) >= (4 if kind == "anchor" else 2)
    if kind == "anchor":
        # Three batches of the token budget, before any log-prob.
        assert sum(pairs for pairs, _ in told[:3]) == 9 / 2


def test_a_shard_without_room_at_all(start: Manifest) -> None:
    refused = finder("anchor", start, 8)([{"pair_id": "a", "prompt_ids": [3] * 8}], lambda pairs, tokens: None)
    assert [of.reason for of in refused if isinstance(of, ThirdRefused)] == ["no_room"]


def test_kl_pairs_are_the_next_pair_s_responses_in_turn(start: Manifest) -> None:
    rows = records(5)
    thirds = found(finder("kl_pairs", start, max_tokens=12), rows)
    names = ("chosen", "rejected", "chosen", "rejected", "chosen")
    for place, (name, third) in enumerate(zip(names, thirds, strict=True)):
        other = rows[(place + 1) % 5]
        assert third.ids == other[f"{name}_ids"][: 12 - len(rows[place]["prompt_ids"])]
        assert third.logps == pytest.approx(expected_logps(start, rows[place], third.ids), abs=1e-5)
    assert any(len(third.ids) < len(rows[(place + 1) % 5]["chosen_ids"]) for place, third in enumerate(thirds))


def test_a_mismatched_response_is_to_another_prompt(start: Manifest) -> None:
    """Pairs of one prompt lie side by side, also where the shard's end and beginning meet."""
    rows = records(6)
    for place, same in ((1, 0), (3, 2), (4, 2), (5, 0)):
        rows[place]["prompt_ids"] = rows[same]["prompt_ids"]
    thirds = found(finder("kl_pairs", start), rows)
    others = (2, 2, 5, 5, 5, 2)
    for place, (other, third) in enumerate(zip(others, thirds, strict=True)):
        assert third.ids == rows[other]["rejected_ids" if place % 2 else "chosen_ids"]
        assert rows[other]["prompt_ids"] != rows[place]["prompt_ids"]


@pytest.mark.parametrize("number", [1, 3])
def test_a_pair_alone_with_its_prompt_in_its_shard_has_no_other_pair(start: Manifest, number: int) -> None:
    """Refused, though other shards hold other prompts: a shard depends on its own pairs alone."""
    rows = [{**row, "prompt_ids": [3, 4, 5]} for row in records(number)]
    refused = finder("kl_pairs", start)(rows, lambda pairs, tokens: None)
    assert refused == [ThirdRefused("no_other_pair", "no other pair of its shard has another prompt")] * number


def test_a_mismatched_response_without_room_is_refused(start: Manifest) -> None:
    rows = records(3)
    rows[1]["prompt_ids"] = [3] * 14
    first, second, third = finder("kl_pairs", start, max_tokens=12)(rows, lambda pairs, tokens: None)
    assert second == ThirdRefused("no_room", "its prompt has 14 tokens, of 12 with a response")
    assert isinstance(first, Third)
    assert isinstance(third, Third)

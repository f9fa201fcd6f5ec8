"""The plan's numbers are those of the artifacts that the stages then write."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from pipeline.attention.backend import Judgement
from pipeline.attention.tables import attention_table
from pipeline.config.check import check_all
from pipeline.config.extract import ExtractParams
from pipeline.config.score import ScoreParams
from pipeline.config.third import ThirdParams
from pipeline.config.train import TrainParams
from pipeline.config.verbalized import VerbalizedParams
from pipeline.config.weights import WeightsParams
from pipeline.data.prepare import prepare
from pipeline.data.sources import open_sources
from pipeline.io.parquet import write_table
from pipeline.judge.prompt import load_prompt
from pipeline.judge.render import PairRefused, Renderer
from pipeline.judge.table import judge_table
from pipeline.models.chat import Chat
from pipeline.models.training_tokens import prompt_tokens, response_tokens
from pipeline.report.plan import Plan, describe, plan
from pipeline.weights.sources.verbalized.prompt import VerbalChat, load_verbal_prompt

HOUR = 1 / 3600
"""A rate, tokens per second, at which every token takes an hour."""


@dataclass(frozen=True)
class Sample:
    """Some pairs of the sample and what the plan needs to read them."""

    pairs: Any
    sections: dict[str, Any]
    renderer: Renderer
    chat: Chat

    def plan(self, **extract: Any) -> Plan:
        sections = self.sections | {"extract": ExtractParams(**extract)} if extract else self.sections
        return plan(self.pairs, self.renderer, self.chat, sections, judge_heads=9)


@pytest.fixture(scope="module")
def sample(root: Path, default_tokenizer: PreTrainedTokenizerFast) -> Sample:
    sections = check_all(root / "params.yaml")
    sections["prepare"] = sections["prepare"].model_copy(update={"limit": 12})
    params = sections["prepare"]
    pairs = prepare(open_sources(params, root), params.validation_share, params.limit).pairs
    chat = Chat(default_tokenizer)
    return Sample(
        pairs, sections, Renderer(chat, load_prompt(root / "pipeline/judge/prompt.txt"), sections["render"]), chat
    )


def test_tokens_are_counted_as_the_stages_count_them(sample: Sample) -> None:
    pairs, sections, renderer, chat = sample.pairs, sample.sections, sample.renderer, sample.chat
    found = sample.plan()
    rows = [pair.record() for pair in pairs["train"]]
    judge = [len(each.input_ids) for row in rows for each in renderer.render(row).rounds]
    trained = 0
    for row in rows:
        prompt, _ = prompt_tokens(chat, row["prompt"], sections["tokenize"])
        trained += 2 * len(prompt) + sum(
            len(response_tokens(chat, row[name], 2048).ids) for name in ("chosen", "rejected")
        )
    assert found.judge_tokens == pytest.approx(sum(judge) / len(rows))
    assert found.training_tokens == pytest.approx(trained / len(rows))
    assert (found.sampled, found.refused, found.judge_cut_share) == (len(rows), 0, 0.0)
    assert set(found.bytes_per_pair) == {"data/judge", "data/attention", "data/reference"}
    sections = sections | {"train": TrainParams(epochs=2, global_batch_pairs=2, max_steps=3)}
    lines = list(describe(found, 1000.0, sections))
    assert f"judge      {found.judge_tokens * sum(found.pairs.values()):,.0f} tokens" in lines[2]
    assert lines[4] == f"train      {found.training_tokens * 6:,.0f} tokens in 3 steps"
    assert [line.split()[1] for line in lines if line.startswith("time")] == ["extract:", "reference:", "train:"]
    assert not [line for line in describe(found, None, sections) if line.startswith("time")]


@pytest.mark.parametrize(
    ("params", "layers", "heads"),
    [
        ({"layers": [0, 5, 9]}, [0, 5, 9], [-1]),
        ({"layers": [0, 5], "heads": "each"}, [0, 5], list(range(9))),
        ({"layers": [-1], "heads": [8, 2]}, [29], [2, 8]),
        ({"layers": [0, 5, 9], "source": "rollout"}, [-1], [-1]),
    ],
)
@pytest.mark.parametrize("rows", [8192, 40])
def test_attention_takes_what_extract_writes(
    sample: Sample,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
    params: dict[str, Any],
    layers: list[int],
    heads: list[int],
) -> None:
    """With few `rows`, fewer pairs than the sample stand for all."""
    monkeypatch.setattr("pipeline.report.plan_disk.ATTENTION_ROWS", rows)
    random = np.random.default_rng(1)
    pairs = [pair.record() for pair in sample.pairs["train"]]
    judged = judge_table([(pair["pair_id"], sample.renderer.render(pair)) for pair in pairs]).to_pylist()
    judgements = []
    for row in judged:
        lengths = [row[f"{name}_end"] - row[f"{name}_start"] for name in ("chosen", "rejected")]
        scores = {layer: [random.random((len(heads), n), dtype=np.float32) for n in lengths] for layer in layers}
        judgements.append(Judgement(rows=scores))
    path = tmp_path / "part.parquet"
    write_table(path, attention_table(judged, judgements, heads, params.get("source", "attention")), {})
    found = sample.plan(**params).bytes_per_pair["data/attention"]
    # A file of few rows carries a larger share of footer.
    assert found == pytest.approx(path.stat().st_size / len(pairs), rel=0.03 if rows == 8192 else 0.4)


Counts = dict[str, float]
"""Means a pair: `both` sequences, `prompt`, `judge` prompts, `verbal` prompts, `gold` response."""


@pytest.fixture(scope="module")
def with_gold(sample: Sample) -> Sample:
    """Every other pair with a third response."""
    pairs = {
        split: [replace(pair, gold=f"{pair.chosen} And more." if row % 2 else None) for row, pair in enumerate(of)]
        for split, of in sample.pairs.items()
    }
    return replace(sample, pairs=pairs)


@pytest.fixture(scope="module")
def counts(with_gold: Sample, default_tokenizer: PreTrainedTokenizerFast) -> Counts:
    """By the tokenizer's own chat template."""

    def length(turns: list[dict[str, str]], **more: Any) -> int:
        return len(default_tokenizer.apply_chat_template(turns, return_dict=False, **more))

    verbal = load_verbal_prompt()
    found: dict[str, list[int]] = {name: [] for name in ("both", "prompt", "judge", "verbal", "gold")}
    for pair in with_gold.pairs["train"]:
        prompt = length(pair.prompt, add_generation_prompt=True)
        # The template ends a turn with a new line, which is not trained on.
        turns = {
            name: length([*pair.prompt, {"role": "assistant", "content": text}]) - 1 - prompt
            for name in ("chosen", "rejected", "gold")
            if (text := getattr(pair, name)) is not None
        }
        found["prompt"].append(prompt)
        found["both"].append(2 * prompt + turns["chosen"] + turns["rejected"])
        found["gold"] += [turns["gold"]] if "gold" in turns else []
        rounds = with_gold.renderer.render(pair.record()).rounds
        found["judge"].append(sum(len(each.input_ids) for each in rounds))
        asked = [verbal.messages(pair.prompt, text) for text in (pair.chosen, pair.rejected)]
        found["verbal"].append(sum(length(turns, add_generation_prompt=True) for turns in asked))
    return {name: float(np.mean(values)) for name, values in found.items()}


@pytest.mark.parametrize(
    ("source", "objective", "hours", "disk"),
    [
        ("judge", "twdpo", "extract: judge*N, reference: both*N, train: 3*both*6", "judge attention reference"),
        ("judge", "cpo", "extract: judge*N, train: 3*both*6", "judge attention"),
        ("uniform", "dpo", "reference: both*N, train: 3*both*6", "reference"),
        ("uniform", "simpo", "train: 3*both*6", ""),
        ("contrast", "twdpo", "score: 2*both*N, reference: both*N, train: 3*both*6", "scores reference"),
        ("critical", "cpo", "score: 2*both*N, train: 3*both*6", "scores"),
        ("verbalized", "cpo", "score: (verbal+2*100)*N, train: 3*both*6", "scores"),
        ("uniform", "tdpo1", "reference: both*N, train: 4*both*6", "reference"),
        ("uniform", "kto", "reference: both*N, third: both/2*R, train: (3*both+both/2)*6", "reference third"),
        ("uniform", "tpo", "train: 3*(both+prompt+gold)*6", "third"),
        (
            "gradient",
            "tidpo",
            "score: 3*both*N, reference: both*N, third: 2*(prompt+7)*R, train: 3*(both+prompt+7)*6",
            "scores reference third",
        ),
        (
            "gradient",
            "tidpo_tdpo2",
            "score: 3*both*N, reference: both*N, third: 2*(prompt+7)*R, train: 4*(both+prompt+7)*6",
            "scores reference third",
        ),
    ],
)
def test_source_and_objective_decide_what_is_planned(
    with_gold: Sample, counts: Counts, source: Any, objective: str, hours: str, disk: str
) -> None:
    """N: all pairs; R: those that training reads; 6 of them are trained on, in forward passes."""
    sample = with_gold
    sections = sample.sections | {
        "weights": WeightsParams(source=source),
        "score": ScoreParams(verbalized=VerbalizedParams(max_new_tokens=100)),
        "third": ThirdParams(max_new_tokens=7),
        "train": TrainParams(objective=objective, global_batch_pairs=2, max_steps=3),
    }
    asking = {"judge": sample.renderer, "verbalized": VerbalChat(sample.chat, load_verbal_prompt())}.get(source)
    found = plan(sample.pairs, asking, sample.chat, sections, judge_heads=9)
    lines = list(describe(found, HOUR, sections))
    sizes = {split: len(of) for split, of in sample.pairs.items()}
    names = counts | {"N": sum(sizes.values()), "R": sizes["train"] + sizes["validation"]}
    expected = {name: eval(of, {}, names) for name, of in (part.split(": ") for part in hours.split(", "))}
    times = {line.split()[1].rstrip(":"): float(line.split()[2]) for line in lines if line.startswith("time")}
    assert times == pytest.approx(expected, abs=0.01)
    assert {line.split()[1] for line in lines if line.startswith("disk")} == {f"data/{name}:" for name in disk.split()}
    stages = [{"extract": "judge"}.get(name, name) for name in expected]
    assert [line.split()[0] for line in lines if line.split()[0] not in ("disk", "time")][2:] == stages
    # How many pairs training cuts is said once.
    assert sum("of pairs cut" in line for line in lines) == 1 + (source == "judge")
    if source == "verbalized":
        assert f"score      up to {expected['score']:,.0f} tokens" in lines[2]
        assert lines[2].endswith(" a pair, 200 of them generated)")
    if "third" in expected and objective != "kto":
        [third] = [line for line in lines if line.startswith("third")]
        assert third.startswith("third      up to ")
        assert third.endswith(" a pair, 7 of them generated)")


def test_what_a_weight_of_0_leaves_without_a_part_is_not_planned(root: Path) -> None:
    found = Plan({"train": 8, "validation": 1}, sampled=8, refused=0, training_tokens=30.0, prompt_tokens=5.0)

    def planned(saliency_share: float, gamma: float) -> list[str]:
        sections = check_all(root / "params.yaml") | {
            "weights": WeightsParams.model_validate(
                {"source": "gradient", "gradient": {"saliency_share": saliency_share}}
            ),
            "train": TrainParams(objective="tidpo", settings={"gamma": gamma}, global_batch_pairs=2),
        }
        return [line.split()[0] for line in describe(found, None, sections)][2:]

    assert planned(0.7, 0.1) == ["score", "reference", "third", "train"]
    assert planned(0.0, 0.0) == ["reference", "train"]


def test_a_pair_that_the_judge_refuses_counts_where_a_judge_is_asked(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sample.pairs["train"][0].pair_id
    render = Renderer.render

    def refusing(self: Renderer, pair: dict[str, Any]) -> Any:
        if pair["pair_id"] == first:
            raise PairRefused("empty_span", "chosen")
        return render(self, pair)

    monkeypatch.setattr(Renderer, "render", refusing)
    assert sample.plan().refused == 1
    assert plan(sample.pairs, None, sample.chat, sample.sections).refused == 0

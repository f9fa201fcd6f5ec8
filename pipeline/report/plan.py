"""What a run will take, from a sample of its pairs: tokens, cut shares, disk per artifact, hours at a measured rate."""

import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config.train import TrainParams
from pipeline.data.pairs import Pair
from pipeline.io.parquet import write_table
from pipeline.judge.render import JudgePair, PairRefused, Renderer
from pipeline.judge.table import judge_table
from pipeline.models.chat import Chat
from pipeline.models.logps import LogProbModel
from pipeline.models.response_logps import response_logps
from pipeline.models.template import TemplateRefusal
from pipeline.models.training_tokens import prompt_tokens, response_tokens
from pipeline.schemas.attention import ATTENTION
from pipeline.schemas.reference import REFERENCE
from pipeline.train.schedule import total_steps

SAMPLE = 500
"""Pairs that are really rendered and tokenized; the rest is extrapolated from them."""
TRAINING_COST = 3.0
"""Forward and backward pass of training, in forward passes."""
MEASURED_TOKENS = 4096


@dataclass(frozen=True)
class Plan:
    """Per pair, means over the sample; `pairs`: all of them by split."""

    pairs: Mapping[str, int]
    sampled: int
    refused: int
    judge_tokens: float
    """Both rounds together."""
    training_tokens: float
    """Both sequences, the prompt counted twice."""
    judge_cut_share: float
    training_cut_share: float
    bytes_per_pair: Mapping[str, float]
    """By artifact, as Parquet files of the sample really take."""


def plan(pairs: Mapping[str, Sequence[Pair]], renderer: Renderer, chat: Chat, sections: Mapping[str, Any]) -> Plan:
    """Render and tokenize a sample, spread evenly over the train pairs."""
    train = pairs["train"]
    step = max(1, len(train) // SAMPLE)
    sample = [pair.record() for pair in itertools.islice(train[::step], SAMPLE)]
    judged: list[tuple[str, JudgePair]] = []
    trained: list[_Trained] = []
    refused = 0
    for pair in sample:
        try:
            judged.append((pair["pair_id"], renderer.render(pair)))
            trained.append(_trained(chat, pair, sections))
        except (PairRefused, TemplateRefusal):
            refused += 1
    if not judged or not trained:
        return Plan(_counts(pairs), len(sample), refused, 0.0, 0.0, 0.0, 0.0, {})
    return Plan(
        pairs=_counts(pairs),
        sampled=len(sample),
        refused=refused,
        judge_tokens=float(np.mean([sum(len(of.input_ids) for of in pair.rounds) for _, pair in judged])),
        training_tokens=float(np.mean([each.tokens for each in trained])),
        judge_cut_share=float(np.mean([any(pair.cut.values()) for _, pair in judged])),
        training_cut_share=float(np.mean([each.cut for each in trained])),
        bytes_per_pair=_bytes_per_pair(judged, trained, len(sections["extract"].layers)),
    )


def measured_rate(model: LogProbModel, prompts: Sequence[Sequence[int]], token_budget: int) -> float:
    """Tokens per second of forward passes over some judge prompts, the first batch not counted."""
    taken = list(itertools.islice(_up_to(prompts, MEASURED_TOKENS), len(prompts)))
    sequences = [(ids[:-1], ids[-1:]) for ids in taken]
    response_logps(model, sequences[:1], token_budget)
    began = time.perf_counter()
    response_logps(model, sequences, token_budget)
    return sum(len(ids) for ids in taken) / (time.perf_counter() - began)


def describe(plan: Plan, rate: float | None, train: TrainParams) -> Iterator[str]:
    """The plan as lines of text. `rate`: forward tokens per second, measured or given; none: no hours."""
    total = sum(plan.pairs.values())
    steps = total_steps(plan.pairs["train"], train.global_batch_pairs, train.epochs, train.max_steps)
    yield "pairs      " + ", ".join(f"{number:,} {split}" for split, number in plan.pairs.items())
    yield f"sampled    {plan.sampled:,} train pairs, {plan.refused} of them refused"
    judge, trained = plan.judge_tokens * total, plan.training_tokens * steps * train.global_batch_pairs
    yield f"judge      {judge:,.0f} tokens ({plan.judge_tokens:,.0f} a pair), {plan.judge_cut_share:.1%} of pairs cut"
    reference = plan.training_tokens * total
    cut = f"{plan.training_cut_share:.1%} of pairs cut"
    yield f"reference  {reference:,.0f} tokens ({plan.training_tokens:,.0f} a pair), {cut}"
    yield f"train      {trained:,.0f} tokens in {steps:,} steps"
    for name, size in plan.bytes_per_pair.items():
        yield f"disk       {name}: {size * total / 2**20:,.1f} MiB ({size:,.0f} bytes a pair)"
    if rate:
        passes = {"extract": judge, "reference": reference, "train": TRAINING_COST * trained}
        for stage, tokens in passes.items():
            yield f"time       {stage}: {tokens / rate / 3600:.2f} h at {rate:,.0f} forward tokens/s"


@dataclass(frozen=True)
class _Trained:
    tokens: int
    response_tokens: tuple[int, int]
    cut: bool


def _trained(chat: Chat, pair: Mapping[str, Any], sections: Mapping[str, Any]) -> _Trained:
    params = sections["tokenize"]
    prompt, prompt_cut = prompt_tokens(chat, pair["prompt"], params)
    room = params.max_tokens - len(prompt)
    chosen, rejected = (response_tokens(chat, pair[name], room) for name in ("chosen", "rejected"))
    lengths = len(chosen.ids), len(rejected.ids)
    return _Trained(2 * len(prompt) + sum(lengths), lengths, bool(prompt_cut or chosen.cut or rejected.cut))


def _counts(pairs: Mapping[str, Sequence[Pair]]) -> dict[str, int]:
    return {split: len(rows) for split, rows in pairs.items()}


def _up_to(prompts: Sequence[Sequence[int]], tokens: int) -> Iterator[Sequence[int]]:
    total = 0
    for ids in prompts:
        if total >= tokens:
            return
        total += len(ids)
        yield ids


def _bytes_per_pair(judged: list[tuple[str, JudgePair]], trained: list[_Trained], layers: int) -> dict[str, float]:
    """Files of the sample written for real; scores and log-probs are random, which compresses as badly as real ones."""
    random = np.random.default_rng(0)
    attention = []
    for pair_id, pair in judged:
        first = pair.rounds[0]
        for layer, (name, (start, end)) in itertools.product(range(layers), first.spans.items()):
            scores = random.random((2, end - start), dtype=np.float32)
            offsets = [{"start": int(a), "end": int(b)} for a, b in first.offsets[name]]
            attention.append(
                {"pair_id": pair_id, "response": name, "source": "attention", "layer": layer, "head": -1}
                | {
                    "token_ids": first.input_ids[start:end],
                    "offsets": offsets,
                    "round_1": scores[0],
                    "round_2": scores[1],
                }
            )
    logps = [
        {"pair_id": pair_id}
        | {
            f"{name}_logps": random.random(n, dtype=np.float32)
            for name, n in zip(("chosen", "rejected"), of.response_tokens, strict=True)
        }
        for (pair_id, _), of in zip(judged, trained, strict=False)
    ]
    tables = {
        "data/judge": judge_table(judged),
        "data/attention": pa.Table.from_pylist(attention, schema=ATTENTION),
        "data/reference": pa.Table.from_pylist(logps, schema=REFERENCE),
    }
    sizes = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, table in tables.items():
            path = Path(folder) / "part.parquet"
            write_table(path, table, {})
            sizes[name] = path.stat().st_size / len(judged)
    return sizes

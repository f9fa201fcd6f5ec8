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

from pipeline.attention.architectures import resolve_heads
from pipeline.config.extract import ExtractParams
from pipeline.config.train import TrainParams
from pipeline.data.pairs import Pair
from pipeline.io.lists import list_array
from pipeline.io.parquet import write_table
from pipeline.judge.render import JudgePair, PairRefused, Renderer
from pipeline.judge.table import judge_table
from pipeline.models.chat import Chat
from pipeline.models.logps import LogProbModel
from pipeline.models.packed.layout import Prompted
from pipeline.models.response_logps import response_logps
from pipeline.models.template import TemplateRefusal
from pipeline.models.training_tokens import prompt_tokens, response_tokens
from pipeline.schemas.attention import ATTENTION, ROLLOUT
from pipeline.schemas.base import FLOATS
from pipeline.schemas.reference import REFERENCE
from pipeline.train.schedule import total_steps

SAMPLE = 500
"""Pairs that are really rendered and tokenized; the rest is extrapolated from them."""
TRAINING_COST = 3.0
"""Forward and backward pass of training, in forward passes."""
MEASURED_TOKENS = 4096
ATTENTION_ROWS = 8192
"""Rows of `data/attention` that are written to be weighed: with a row per head, a few pairs make so many."""


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


def plan(
    pairs: Mapping[str, Sequence[Pair]], renderer: Renderer, chat: Chat, sections: Mapping[str, Any], judge_heads: int
) -> Plan:
    """Render and tokenize a sample, spread evenly over the train pairs.

    `judge_heads`: attention heads of one of the judge's layers, of which `extract.heads: each` caches every one. Raises
    ModelError for an extract.heads that the judge lacks.
    """
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
        bytes_per_pair=_bytes_per_pair(judged, trained, _rows_of_response(sections["extract"], judge_heads)),
    )


def measured_rate(model: LogProbModel, prompts: Sequence[Sequence[int]], token_budget: int) -> float:
    """Tokens per second of forward passes over some judge prompts, the first batch not counted."""
    taken = list(itertools.islice(_up_to(prompts, MEASURED_TOKENS), len(prompts)))
    items = [Prompted(ids[:-1], (ids[-1:],)) for ids in taken]
    response_logps(model, items[:1], token_budget)
    began = time.perf_counter()
    response_logps(model, items, token_budget)
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


def _rows_of_response(params: ExtractParams, judge_heads: int) -> list[tuple[str, int, int]]:
    """Source, layer and head of each row that `extract` writes for a response."""
    layers = [ROLLOUT] if params.source == "rollout" else range(len(params.layers))
    return [(params.source, layer, head) for layer in layers for head in resolve_heads(params.heads, judge_heads)]


def _bytes_per_pair(
    judged: list[tuple[str, JudgePair]], trained: list[_Trained], rows: Sequence[tuple[str, int, int]]
) -> dict[str, float]:
    """Files of the sample written for real; scores and log-probs are random, which compresses as badly as real ones.

    `rows`: of each response in data/attention. Of that artifact fewer pairs are written, and weighed by their tokens.
    """
    random = np.random.default_rng(0)
    logps = [
        {"pair_id": pair_id}
        | {
            f"{name}_logps": random.random(n, dtype=np.float32)
            for name, n in zip(("chosen", "rejected"), of.response_tokens, strict=True)
        }
        for (pair_id, _), of in zip(judged, trained, strict=False)
    ]
    few = judged[:: -(-2 * len(rows) * len(judged) // ATTENTION_ROWS)]
    sizes = {
        "data/judge": _file_size(judge_table(judged)) / len(judged),
        "data/attention": _file_size(_attention(few, rows, random)) * _span_tokens(judged) / _span_tokens(few),
        "data/reference": _file_size(pa.Table.from_pylist(logps, schema=REFERENCE)) / len(judged),
    }
    sizes["data/attention"] /= len(judged)
    return sizes


def _attention(
    judged: Sequence[tuple[str, JudgePair]], rows: Sequence[tuple[str, int, int]], random: np.random.Generator
) -> pa.Table:
    """`data/attention` of some pairs, as `extract` orders it, with random scores."""
    responses = []
    for pair_id, pair in judged:
        first = pair.rounds[0]
        for name, (start, end) in first.spans.items():
            offsets = [{"start": int(a), "end": int(b)} for a, b in first.offsets[name]]
            responses.append((pair_id, name, first.input_ids[start:end], offsets))
    # Ids and offsets are the same in each row of a response: made once as Python objects, then repeated.
    repeated = np.repeat(np.arange(len(responses)), len(rows))
    columns = {
        name: pa.array(values, ATTENTION.field(name).type).take(repeated)
        for name, values in zip(
            ("pair_id", "response", "token_ids", "offsets"), zip(*responses, strict=True), strict=True
        )
    }
    for name, values in zip(("source", "layer", "head"), zip(*rows, strict=True), strict=True):
        columns[name] = pa.array(list(values) * len(responses), ATTENTION.field(name).type)
    for name in ("round_1", "round_2"):
        scores = [random.random(len(responses[row][2]), dtype=np.float32) for row in repeated]
        columns[name] = list_array(scores, FLOATS)
    return pa.table([columns[name] for name in ATTENTION.names], schema=ATTENTION)


def _span_tokens(judged: Sequence[tuple[str, JudgePair]]) -> int:
    return sum(end - start for _, pair in judged for start, end in pair.rounds[0].spans.values())


def _file_size(table: pa.Table) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.parquet"
        write_table(path, table, {})
        return path.stat().st_size

"""What a run will take, from a sample of its pairs: tokens, cut shares, disk per artifact, hours at a measured rate."""

import itertools
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.config.needs import objective_needs
from pipeline.config.weights import reads_scores
from pipeline.data.pairs import Pair
from pipeline.judge.render import JudgePair, PairRefused, Renderer
from pipeline.models.budget import TokenBudget
from pipeline.models.chat import Chat
from pipeline.models.logps import LogProbModel
from pipeline.models.packed.layout import Prompted
from pipeline.models.response_logps import response_logps
from pipeline.models.template import TemplateRefusal
from pipeline.models.training_tokens import NotTrained, pair_tokens
from pipeline.report.plan_disk import Trained, bytes_per_pair, rows_of_response
from pipeline.schemas.base import RESPONSES
from pipeline.train.schedule import total_steps
from pipeline.weights.sources.verbalized.prompt import VerbalChat

SAMPLE = 500
"""Pairs that are really rendered and tokenized; the rest is extrapolated from them."""
TRAINING_COST = 3.0
"""Forward and backward pass of training, in forward passes."""
SCORE_COST = {"gradient": 3.0, "contrast": 2.0, "critical": 2.0}
"""Of sources with raw scores, in forward passes over the trained tokens: a gradient, or two models."""
MEASURED_TOKENS = 4096


@dataclass(frozen=True)
class Plan:
    """Per pair, means over the sample; `pairs`: all of them by split."""

    pairs: Mapping[str, int]
    sampled: int
    refused: int
    judge_tokens: float = 0.0
    """Both prompts together, of judges that the weight source asks."""
    training_tokens: float = 0.0
    """Both sequences, the prompt counted twice."""
    prompt_tokens: float = 0.0
    """As trained on, counted once."""
    gold_tokens: float = 0.0
    """Of the data's third responses, over the pairs that have one."""
    judge_cut_share: float = 0.0
    training_cut_share: float = 0.0
    bytes_per_pair: Mapping[str, float] = field(default_factory=dict)
    """By artifact that will be written, as Parquet files of the sample really take."""


def plan(
    pairs: Mapping[str, Sequence[Pair]],
    asking: Renderer | VerbalChat | None,
    chat: Chat,
    sections: Mapping[str, Any],
    judge_heads: int = 0,
) -> Plan:
    """Render and tokenize a sample, spread evenly over the train pairs.

    `asking`: how the judge is asked, for weight sources `judge` (a Renderer) and `verbalized`; None: it is not.
    `judge_heads`: attention heads of one of the judge's layers, of which `extract.heads: each` caches every one. Raises
    ModelError for an extract.heads that the judge lacks.
    """
    train = pairs["train"]
    step = max(1, len(train) // SAMPLE)
    sample = [pair.record() for pair in itertools.islice(train[::step], SAMPLE)]
    judged: list[tuple[str, JudgePair]] = []
    asked: list[int] = []
    trained: list[Trained] = []
    for pair in sample:
        try:
            rendered = asking.render(pair) if isinstance(asking, Renderer) else None
            asked_of_pair = sum(len(ids) for ids in judge_prompts(asking, pair)) if asking else 0
            trained.append(_trained(chat, pair, sections))
        except (PairRefused, TemplateRefusal, NotTrained):
            continue
        asked.append(asked_of_pair)
        if rendered:
            judged.append((pair["pair_id"], rendered))
    refused = len(sample) - len(trained)
    if not trained:
        return Plan(_counts(pairs), len(sample), refused)
    needs = objective_needs(sections["train"])
    rows = rows_of_response(sections["extract"], judge_heads) if judged else []
    return Plan(
        pairs=_counts(pairs),
        sampled=len(sample),
        refused=refused,
        judge_tokens=_mean(asked),
        training_tokens=_mean([each.tokens for each in trained]),
        prompt_tokens=_mean([each.prompt for each in trained]),
        gold_tokens=_mean([each.gold for each in trained if each.gold is not None]),
        judge_cut_share=_mean([any(pair.cut.values()) for _, pair in judged]),
        training_cut_share=_mean([each.cut for each in trained]),
        bytes_per_pair=bytes_per_pair(
            judged,
            rows,
            trained,
            reference="ref_logps" in needs,
            scores=reads_scores(sections["weights"]),
            third=_third_tokens(trained, needs, sections["third"].max_new_tokens),
        ),
    )


def judge_prompts(asking: Renderer | VerbalChat, pair: dict[str, Any]) -> list[list[int]]:
    """Both prompts about a pair: of the two rounds, or of its two responses. Raises PairRefused, TemplateRefusal."""
    if isinstance(asking, Renderer):
        return [each.input_ids for each in asking.render(pair).rounds]
    return [asking.encode(pair["prompt"], pair[name]) for name in RESPONSES]


def measured_rate(model: LogProbModel, prompts: Sequence[Sequence[int]], token_budget: int) -> float:
    """Tokens per second of forward passes over some judge prompts, the first batch not counted."""
    taken = list(itertools.islice(_up_to(prompts, MEASURED_TOKENS), len(prompts)))
    items = [Prompted(ids[:-1], (ids[-1:],)) for ids in taken]
    budget = TokenBudget(token_budget, model.model.device)
    response_logps(model, items[:1], budget)
    began = time.perf_counter()
    response_logps(model, items, budget)
    return sum(len(ids) for ids in taken) / (time.perf_counter() - began)


def describe(plan: Plan, rate: float | None, sections: Mapping[str, Any]) -> Iterator[str]:
    """The plan as lines of text, of the stages that the weight source and the objective need.

    `rate`: forward tokens per second, measured or given; none: no hours.
    """
    total = sum(plan.pairs.values())
    train, source = sections["train"], sections["weights"].source
    needs = objective_needs(train)
    steps = total_steps(plan.pairs["train"], train.global_batch_pairs, train.epochs, train.max_steps)
    passes: dict[str, float] = {}
    generating = []
    yield "pairs      " + ", ".join(f"{number:,} {split}" for split, number in plan.pairs.items())
    yield f"sampled    {plan.sampled:,} train pairs, {plan.refused} of them refused"
    if source == "judge":
        passes["extract"] = plan.judge_tokens * total
        yield f"judge      {_tokens(plan.judge_tokens, total)}, {plan.judge_cut_share:.1%} of pairs cut"
    elif source == "verbalized":
        written = 2 * sections["score"].verbalized.max_new_tokens
        passes["score"] = (plan.judge_tokens + written) * total
        generating.append("score")
        yield f"score      {_tokens(plan.judge_tokens + written, total, written)}"
    elif reads_scores(sections["weights"]):
        cost = SCORE_COST[source]
        passes["score"] = cost * plan.training_tokens * total
        yield f"score      {_tokens(plan.training_tokens, total)}, read in about {cost:.0f} forward passes"
    cut = f"{plan.training_cut_share:.1%} of pairs cut"
    if "ref_logps" in needs:
        passes["reference"] = plan.training_tokens * total
        yield f"reference  {_tokens(plan.training_tokens, total)}, {cut}"
    read = sum(number for split, number in plan.pairs.items() if split != "test")
    if "anchor" in needs:
        # The sample, and then its log-probs.
        written = sections["third"].max_new_tokens
        third = plan.prompt_tokens + written
        passes["third"] = 2 * third * read
        generating.append("third")
        yield f"third      {_tokens(2 * third, read, written)}"
    elif "kl_pairs" in needs:
        third = plan.training_tokens / 2
        passes["third"] = third * read
        yield f"third      {_tokens(third, read)}"
    else:
        third = plan.prompt_tokens + plan.gold_tokens if "gold" in needs else 0.0
    trained = steps * train.global_batch_pairs
    # KTO reads its third responses without a gradient.
    extra = third if "kl_pairs" in needs else 0.0
    each = plan.training_tokens + third - extra
    cost = TRAINING_COST + ("ref_model" in needs)
    passes["train"] = (cost * each + extra) * trained
    up_to = "up to " if "anchor" in needs else ""
    uncounted = "" if "ref_logps" in needs else f", {cut}"
    yield f"train      {up_to}{(each + extra) * trained:,.0f} tokens in {steps:,} steps{uncounted}"
    for name, size in plan.bytes_per_pair.items():
        yield f"disk       {name}: {size * total / 2**20:,.1f} MiB ({size:,.0f} bytes a pair)"
    if rate:
        for stage, tokens in passes.items():
            slower = "; tokens that are generated take longer" if stage in generating else ""
            yield f"time       {stage}: {tokens / rate / 3600:.2f} h at {rate:,.0f} forward tokens/s{slower}"


def _tokens(each: float, pairs: int, generated: int = 0) -> str:
    """`generated`: of a pair's tokens, at most."""
    up_to, of_them = ("up to ", f", {generated:,} of them generated") if generated else ("", "")
    return f"{up_to}{each * pairs:,.0f} tokens ({each:,.0f} a pair{of_them})"


def _trained(chat: Chat, pair: Mapping[str, Any], sections: Mapping[str, Any]) -> Trained:
    """Raises TemplateRefusal, NotTrained."""
    tokens = pair_tokens(chat, pair, sections["tokenize"])
    chosen, rejected = (tokens.responses[name] for name in RESPONSES)
    gold = tokens.responses.get("gold")
    return Trained(
        pair["pair_id"],
        len(tokens.prompt_ids),
        (len(chosen.ids), len(rejected.ids)),
        None if gold is None else len(gold.ids),
        bool(tokens.prompt_cut or chosen.cut or rejected.cut),
    )


def _third_tokens(trained: Sequence[Trained], needs: Collection[str], anchor: int) -> list[int]:
    """Of the responses that the objective takes beside chosen and rejected; `anchor`: at most of a sampled one."""
    if "anchor" in needs:
        return [anchor] * len(trained)
    if "kl_pairs" in needs:
        return [each.response_tokens[0] for each in trained]
    return [each.gold for each in trained if each.gold is not None] if "gold" in needs else []


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def _counts(pairs: Mapping[str, Sequence[Pair]]) -> dict[str, int]:
    return {split: len(rows) for split, rows in pairs.items()}


def _up_to(prompts: Sequence[Sequence[int]], tokens: int) -> Iterator[Sequence[int]]:
    total = 0
    for ids in prompts:
        if total >= tokens:
            return
        total += len(ids)
        yield ids

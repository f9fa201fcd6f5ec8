"""The response beside chosen and rejected: sampled from the start, the data's best one, or another pair's.

anchor     TI-DPO's (METHODS 3.1, Eq. 12): sampled from the prompt once, with the start, and frozen (METHODS T8, 3.3)
gold       TPO's: the third response of the data
kl_pairs   KTO's: a response to another prompt of the shard after this pair's prompt, for the estimate of its KL term
           (METHODS 5)
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from pipeline.config.runtime import RuntimeParams
from pipeline.config.third import ThirdParams
from pipeline.errors import NonFiniteError
from pipeline.models.budget import TokenBudget
from pipeline.models.chat import Chat
from pipeline.models.generation.base import stop_ids
from pipeline.models.generation.sample import sample_responses
from pipeline.models.load import context_length, load_model, load_tokenizer
from pipeline.models.logps import LogProbModel
from pipeline.models.manifest import Manifest
from pipeline.models.packed.layout import Prompted
from pipeline.models.response_logps import response_logps

Record = Mapping[str, Any]
"""A row of `data/tokens/`."""
Report = Callable[[float, int], None]
"""Told the number of pairs, and of computed tokens, that are newly done. An anchor that is sampled is half a pair."""


@dataclass(frozen=True)
class Third:
    """T tokens that follow the pair's prompt."""

    ids: Sequence[int]
    logps: NDArray[np.float32] | None
    """[T] log pi_ref of each; None where the objective takes none."""


@dataclass(frozen=True)
class ThirdRefused:
    """A pair without a third response."""

    reason: str
    detail: str


Finder = Callable[[Sequence[Record], Report], list[Third | ThirdRefused]]
"""Third responses of a shard's pairs, in their order."""


def open_third(
    kind: str,
    start: Manifest,
    params: ThirdParams,
    max_tokens: int,
    dtype: str,
    runtime: RuntimeParams,
    device: torch.device,
) -> Finder:
    """How responses of a kind are found; loads the start where it is needed. Raises KeyError for an unknown kind."""
    if kind == "gold":
        return _gold
    model = load_model(start, dtype, device)
    plain = model.config._attn_implementation
    tokenizer = load_tokenizer(start)
    stops = stop_ids(tokenizer, Chat(tokenizer, start.chat_template, role="start"))
    asking = _Asking(params, stops, max_tokens, TokenBudget(runtime.token_budget, device))
    choose = {"anchor": _anchors, "kl_pairs": _mismatched}[kind]
    budget = TokenBudget(runtime.token_budget, device)
    scored = 0.5 if kind == "anchor" else 1.0

    def find(records: Sequence[Record], report: Report) -> list[Third | ThirdRefused]:
        model.set_attn_implementation(plain)
        ids = choose(model, records, asking, report)
        # After sampling: for log-probs the model attends in packed rows.
        scorer = LogProbModel(model, attention=runtime.attention)
        there = [(place, response) for place, response in enumerate(ids) if not isinstance(response, ThirdRefused)]
        items = [Prompted(records[place]["prompt_ids"], [response]) for place, response in there]
        logps = response_logps(scorer, items, budget, on_progress=lambda pairs, tokens: report(scored * pairs, tokens))
        found: list[Third | ThirdRefused | None] = [None if isinstance(of, list) else of for of in ids]
        for (place, response), [values] in zip(there, logps, strict=True):
            if not np.isfinite(values).all():
                raise NonFiniteError(
                    f"pair {records[place]['pair_id']}: a log-prob of its third response is not finite under"
                    f" {start.name} in {dtype}; try reference.dtype and train.dtype: float32"
                )
            found[place] = Third(response, values)
        return [third for third in found if third is not None]

    return find


@dataclass(frozen=True)
class _Asking:
    params: ThirdParams
    stops: Collection[int]
    max_tokens: int
    budget: TokenBudget


def _gold(records: Sequence[Record], report: Report) -> list[Third | ThirdRefused]:
    found: list[Third | ThirdRefused] = []
    for record in records:
        ids = record["gold_ids"]
        found.append(
            ThirdRefused("no_gold", "the data have no third response for it") if ids is None else Third(ids, None)
        )
    report(len(records), 0)
    return found


def _anchors(
    model: PreTrainedModel, records: Sequence[Record], asking: _Asking, report: Report
) -> list[list[int] | ThirdRefused]:
    """A sample for each pair; one that would not fit `tokenize.max_tokens` or the model's context is cut there."""
    limit = min(asking.max_tokens, context_length(model.config))
    rooms = [limit - len(record["prompt_ids"]) for record in records]
    asked = [record for record, room in zip(records, rooms, strict=True) if room > 0]
    prompts = [list(record["prompt_ids"]) for record in asked]
    names = [record["pair_id"] for record in asked]
    samples = iter(
        sample_responses(
            model,
            asking.stops,
            prompts,
            names,
            asking.params,
            asking.budget,
            on_answers=lambda answers, tokens: report(0.5 * answers, tokens),
        )
    )
    return [
        next(samples)[:room] if room > 0 else _no_room(record, limit)
        for record, room in zip(records, rooms, strict=True)
    ]


def _mismatched(
    model: PreTrainedModel, records: Sequence[Record], asking: _Asking, report: Report
) -> list[list[int] | ThirdRefused]:
    """Of the next pair of the shard with another prompt the chosen and the rejected response in turn, cut to the limit.

    Pairs of one prompt may lie side by side. Where a shard has no other prompt its pairs are refused: a shard is made
    of its own pairs and no others, so that it can be made by itself.
    """
    found: list[list[int] | ThirdRefused] = []
    for place, (record, other) in enumerate(zip(records, _of_other_prompts(records), strict=True)):
        if other is None:
            found.append(ThirdRefused("no_other_pair", "no other pair of its shard has another prompt"))
            continue
        ids = other["rejected_ids" if place % 2 else "chosen_ids"]
        room = asking.max_tokens - len(record["prompt_ids"])
        found.append(list(ids[:room]) if room > 0 else _no_room(record, asking.max_tokens))
    return found


def _of_other_prompts(records: Sequence[Record]) -> list[Record | None]:
    """For each pair the next one whose prompt is another, the first after the last; None where there is none."""
    prompts = [tuple(record["prompt_ids"]) for record in records]
    found: list[Record | None] = [None] * len(records)
    following: int | None = None
    # From behind, twice around: what follows a pair is its neighbour, or, of the same prompt, what follows that one.
    for place in reversed(2 * list(range(len(records)))):
        neighbour = (place + 1) % len(records)
        following = neighbour if prompts[neighbour] != prompts[place] else following
        found[place] = None if following is None else records[following]
    return found


def _no_room(record: Record, limit: int) -> ThirdRefused:
    return ThirdRefused("no_room", f"its prompt has {len(record['prompt_ids'])} tokens, of {limit} with a response")

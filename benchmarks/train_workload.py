"""What the training benchmark runs on: preference pairs with uniform weights, and the policy, moved from its start."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PretrainedConfig, PreTrainedModel

from benchmarks.workload import (
    CHOSEN_TOKENS,
    LOG_NORMAL_SIGMA,
    PACKAGED,
    QUESTION_TOKENS,
    REJECTED_TOKENS,
    ROOT,
    SHAPES,
    SHARED,
)
from pipeline.attention.flops import LayerFlops
from pipeline.config.prepare import PrepareParams
from pipeline.config.tokenize import TokenizeParams
from pipeline.data.prepare import prepare
from pipeline.data.sources import open_sources
from pipeline.models.chat import Chat, TemplateRefusal
from pipeline.models.training_tokens import prompt_tokens, response_tokens
from pipeline.schemas.base import RESPONSES
from pipeline.train.pairs import TrainedPair, TrainedResponse

LIMITS = TokenizeParams()
"""2,048 tokens in all, 1,800 of them in the prompt."""
NOISE = 0.02
"""Deviation of what is added to every weight matrix, as a share of the matrix's root mean square."""
BETA = 0.1
LEARNING_RATE = 1e-20
"""The weights stay where they are, so that every round computes the same losses; the work is that of any other rate."""
MAX_GRAD_NORM = 1e6
"""Never reached, so that gradients' norms can be compared; both sides compute the norm and scale by it all the same."""
FLOPS = (
    "3 * (2 * weights of the blocks' matrices * positions + 4 * heads * head_dim * (query, key) pairs that causal "
    "attention sees in each block + 2 * hidden * vocabulary * response tokens); norms, softmax, rotary embedding, the "
    "embedding's lookup, the optimizer and recomputed activations are not counted. model: positions and attention of "
    "prompt + chosen and of prompt + rejected. computed: the prompt once"
)


Steps = dict[str, list[float]]
"""Of one pass over global batches, one entry a step: `seconds`, `losses`, `grad_norms` (where they are asked for)."""


def open_pairs(lengths: str, count: int, vocabulary: int, seed: int) -> list[TrainedPair]:
    """The pairs, with zeros for the reference's log-probs.

    lengths: `real`: the first pairs of train.jsonl.gz in the packaged model's tokens, as the stage `tokenize` cuts
    them; `ultrafeedback`: random ids in log-normal lengths with that dataset's means.
    """
    return _real_pairs(count) if lengths == "real" else _random_pairs(count, vocabulary, seed)


def with_reference(pairs: Sequence[TrainedPair], path: str | Path) -> list[TrainedPair]:
    """The pairs with the reference's log-probs of a file that `save_reference` wrote."""
    found = np.load(path)
    return [
        replace(
            pair,
            chosen=replace(pair.chosen, ref_logps=found[f"{pair.pair_id}/chosen"]),
            rejected=replace(pair.rejected, ref_logps=found[f"{pair.pair_id}/rejected"]),
        )
        for pair in pairs
    ]


def save_reference(path: str | Path, pairs: Sequence[TrainedPair], logps: Sequence[np.ndarray]) -> None:
    """Keep log-probs [T] of each pair's chosen and rejected response, one after the other."""
    names = [f"{pair.pair_id}/{name}" for pair in pairs for name in RESPONSES]
    np.savez(path, **dict(zip(names, logps, strict=True)))


def spread(pairs: Sequence[TrainedPair], count: int) -> list[TrainedPair]:
    """So many of the pairs, evenly over their lengths: what settings are searched on."""
    ordered = sorted(pairs, key=lambda pair: (pair.tokens, pair.pair_id))
    return [ordered[(2 * index + 1) * len(ordered) // (2 * count)] for index in range(count)]


def config(model: str, layers: int | None) -> PretrainedConfig:
    """Of `packaged`, or of a name of SHAPES, perhaps with fewer blocks."""
    if model in SHAPES:
        return LlamaConfig(**SHAPES[model] | ({"num_hidden_layers": layers} if layers else {}))
    return AutoConfig.from_pretrained(PACKAGED, local_files_only=True)


def open_policy(model: str, layers: int | None, device: str, seed: int, moved: bool) -> PreTrainedModel:
    """A float32 model, the same for the same arguments; shapes have random weights.

    moved: seeded noise is added to its matrices (NOISE). The reference is the model without, so that the loss is not
    log 2 and a comparison of losses can fail.
    """
    if model in SHAPES:
        torch.manual_seed(seed)
        with torch.device(device):
            policy = AutoModelForCausalLM.from_config(
                config(model, layers), dtype=torch.float32, attn_implementation="sdpa"
            )
    else:
        policy = AutoModelForCausalLM.from_pretrained(
            PACKAGED, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True
        ).to(device)
    if moved:
        generator = torch.Generator(device).manual_seed(seed)
        with torch.no_grad():
            for weight in policy.parameters():
                if weight.ndim == 2:
                    noise = torch.randn(weight.shape, generator=generator, device=device)
                    weight += noise.mul_(NOISE * weight.square().mean().sqrt())
    return policy


@dataclass(frozen=True)
class Work:
    """What one pass over pairs computes."""

    tokens: int
    """Of prompt + chosen and prompt + rejected."""
    shared_tokens: int
    """The same with the prompt once."""
    response_tokens: int
    model_flops: float
    """Forward and backward, as FLOPS says."""
    computed_flops: float
    """The same with the prompt once."""


def work(pairs: Sequence[TrainedPair], shape: PretrainedConfig) -> Work:
    """Counts of one pass over the pairs."""
    with torch.device("meta"):
        counts = LayerFlops(AutoModelForCausalLM.from_config(shape))

    def scores(prompt: int, response: int) -> int:
        """(query, key) pairs of a response's own tokens."""
        return response * prompt + response * (response + 1) // 2

    sizes = [(len(pair.prompt_ids), len(pair.chosen.ids), len(pair.rejected.ids)) for pair in pairs]
    heads = sum(chosen + rejected for _, chosen, rejected in sizes)
    prompts = sum(prompt for prompt, _, _ in sizes)
    in_prompts = sum(scores(0, prompt) for prompt, _, _ in sizes)
    in_responses = sum(scores(prompt, chosen) + scores(prompt, rejected) for prompt, chosen, rejected in sizes)

    def flops(times: int) -> float:
        positions, seen = times * prompts + heads, times * in_prompts + in_responses
        return 3 * counts.of(positions, seen, shape.num_hidden_layers, heads)

    return Work(2 * prompts + heads, prompts + heads, heads, flops(2), flops(1))


def _real_pairs(count: int) -> list[TrainedPair]:
    if not SHARED.is_dir():
        raise SystemExit(f"{SHARED} is not there: this benchmark runs on the real preference pairs of that folder")
    params = PrepareParams(folder=str(SHARED), train="train.jsonl.gz", test=None, validation_share=0.0, limit=2 * count)
    chat = Chat(AutoTokenizer.from_pretrained(PACKAGED, local_files_only=True), role="start")
    pairs: list[TrainedPair] = []
    for pair in prepare(open_sources(params, ROOT), 0.0, params.limit).pairs["train"]:
        record = pair.record()
        try:
            prompt, _ = prompt_tokens(chat, record["prompt"], LIMITS)
            found = [response_tokens(chat, record[name], LIMITS.max_tokens - len(prompt)) for name in RESPONSES]
        except TemplateRefusal:
            continue
        if all(len(response.ids) > response.eos for response in found):
            pairs.append(_uniform(pair.pair_id, prompt, [response.ids for response in found]))
        if len(pairs) == count:
            return pairs
    raise SystemExit(f"{SHARED}/train.jsonl.gz: {len(pairs)} usable pairs among its first {2 * count}, fewer than "
                     f"--pairs {count}")  # fmt: skip


def _random_pairs(count: int, vocabulary: int, seed: int) -> list[TrainedPair]:
    rng = random.Random(seed)

    def ids(mean: int, most: int) -> list[int]:
        # The mean of a log-normal is exp(mu + sigma^2 / 2).
        drawn = round(rng.lognormvariate(math.log(mean) - LOG_NORMAL_SIGMA**2 / 2, LOG_NORMAL_SIGMA))
        return [rng.randrange(vocabulary) for _ in range(min(max(drawn, 4), most))]

    pairs = []
    for index in range(count):
        prompt = ids(QUESTION_TOKENS, LIMITS.max_prompt_tokens)
        room = LIMITS.max_tokens - len(prompt)
        pairs.append(_uniform(f"pair-{index}", prompt, [ids(mean, room) for mean in (CHOSEN_TOKENS, REJECTED_TOKENS)]))
    return pairs


def _uniform(pair_id: str, prompt: Sequence[int], responses: Sequence[Sequence[int]]) -> TrainedPair:
    """a_t = 1 / T and |y| = T: Eq. 5 is DPO's loss."""
    chosen, rejected = (
        TrainedResponse(
            np.array(ids), np.full(len(ids), 1 / len(ids), np.float32), np.zeros(len(ids), np.float32), float(len(ids))
        )
        for ids in responses
    )
    return TrainedPair(pair_id, np.array(prompt), chosen, rejected)

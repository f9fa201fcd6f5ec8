"""One trajectory: a plain PyTorch loop over padded rows, and every way in which the trainer can arrange the work."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM, get_cosine_schedule_with_warmup

from pipeline.models.manifest import Manifest
from pipeline.train.order import shuffled_order
from pipeline.train.pairs import TrainedPair, TrainedResponse
from pipeline.train.run import run_training
from pipeline.train.stream import PairArtifacts, open_split
from tests.train.tiny import PARAMS, make_job

WAYS: dict[str, dict[str, Any]] = {
    "one pair at a time": {"micro_batch_tokens": 1},
    "some pairs at a time": {"micro_batch_tokens": 60},
    "all at once": {"micro_batch_tokens": 4096},
    "packed, prompts repeated": {"share_prompts": False},
    "packed under transformers' sdpa": {"share_prompts": False, "attention": "sdpa"},
    "shared prompts under transformers' sdpa": {"attention": "sdpa"},
    "all blocks recomputed": {"activation_checkpointing": "full"},
    "every second block recomputed": {"activation_checkpointing": 2},
    "activations offloaded": {"offload_activations": True, "activation_checkpointing": 2},
}
TOLERANCE = 5e-5
"""Of a loss after up to ten steps of float32, whose first steps are far above any sensible learning rate."""


def padded_logps(model: Any, pairs: list[TrainedPair]) -> Tensor:
    """[2B, S]: chosen responses, then rejected ones, each in a row of its own; 0 outside the response."""
    rows = [(pair.prompt_ids, side(pair)) for side in (chosen, rejected) for pair in pairs]
    width = max(len(prompt) + len(response.ids) for prompt, response in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    attention, mask = torch.zeros_like(ids), torch.zeros(len(rows), width, dtype=torch.bool)
    for place, (prompt, response) in enumerate(rows):
        end = len(prompt) + len(response.ids)
        ids[place, :end] = torch.from_numpy(np.concatenate([prompt, response.ids]))
        attention[place, :end] = 1
        mask[place, len(prompt) : end] = True
    logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits
    logps = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    return torch.nn.functional.pad(logps, (1, 0)) * mask


def chosen(pair: TrainedPair) -> TrainedResponse:
    return pair.chosen


def rejected(pair: TrainedPair) -> TrainedResponse:
    return pair.rejected


def reward(logps: Tensor, pair: TrainedPair, response: TrainedResponse, beta: float) -> Tensor:
    """Eq. 5's beta |y| sum_t a_t r_t, written out."""
    own = slice(len(pair.prompt_ids), len(pair.prompt_ids) + len(response.ids))
    ratios = logps[own] - torch.tensor(response.ref_logps)
    return beta * response.length * (torch.tensor(response.weights) * ratios).sum()


def padded_losses(root: Path, start: Manifest, optimizer: type[torch.optim.Optimizer], **changes: Any) -> list[float]:
    """Losses of transformers' model with eager attention, padding, whole logits, torch's optimizer and nothing of ours
    but the order of the pairs."""
    params = make_job(root, start, changes).params
    stream = open_split(PairArtifacts.below(root / "data"), "train")
    per_epoch = len(stream) // params.global_batch_pairs
    model = AutoModelForCausalLM.from_pretrained(start.path, attn_implementation="eager")
    stepped = optimizer(model.parameters(), lr=params.learning_rate, eps=params.adam_epsilon, weight_decay=0.0)
    steps = per_epoch * params.epochs
    schedule = get_cosine_schedule_with_warmup(stepped, int(np.ceil(steps * params.warmup_ratio)), steps)
    found = []
    for step in range(steps):
        epoch, index = divmod(step, per_epoch)
        first = index * params.global_batch_pairs
        order = shuffled_order(params.seed, epoch, stream.shard_rows)
        pairs = stream.block(order, first, first + params.global_batch_pairs)
        logps = padded_logps(model, pairs)
        margins = [
            reward(logps[place], pair, pair.chosen, params.beta)
            - reward(logps[len(pairs) + place], pair, pair.rejected, params.beta)
            for place, pair in enumerate(pairs)
        ]
        loss = -logsigmoid(torch.stack(margins)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), params.max_grad_norm)
        stepped.step()
        schedule.step()
        stepped.zero_grad()
        found.append(loss.item())
    return found


@pytest.fixture
def expected(root: Path, start: Manifest) -> list[float]:
    return padded_losses(root, start, torch.optim.AdamW)


def test_rmsprop_gives_the_padded_loop_s_losses(root: Path, start: Manifest) -> None:
    changes = {"learning_rate": 3e-4}  # its first steps are ten times as large as Adam's
    losses = padded_losses(root, start, torch.optim.RMSprop, **changes)
    assert min(losses) < 0.9 * losses[0]
    (root / "rmsprop").mkdir()
    (root / "rmsprop" / "data").symlink_to(root / "data")
    job = make_job(root / "rmsprop", start, changes | {"optimizer": "rmsprop"})
    found = [line["train/loss"] for line in run_training(job).history]
    assert found == pytest.approx(losses, abs=TOLERANCE)
    assert found != pytest.approx(padded_losses(root, start, torch.optim.AdamW, **changes), abs=10 * TOLERANCE)


def test_every_way_gives_the_padded_loop_s_losses(
    root: Path, start: Manifest, expected: list[float], subtests: pytest.Subtests
) -> None:
    assert min(expected) < 0.9 * expected[0]  # it learns, or equal losses would say little
    for name, runtime in WAYS.items():
        with subtests.test(name):
            (root / name).mkdir()
            (root / name / "data").symlink_to(root / "data")
            job = make_job(root / name, start, PARAMS, runtime)
            found = [line["train/loss"] for line in run_training(job).history]
            assert found == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile wants a C++ compiler")
@pytest.mark.parametrize("checkpointing", ["none", "full"])
def test_compiled_blocks_give_the_padded_loop_s_losses(
    root: Path, start: Manifest, expected: list[float], checkpointing: str
) -> None:
    """Rows of ever other segments compile once: attention stays outside."""
    torch._dynamo.reset()
    counts = torch._dynamo.utils.counters
    counts.clear()
    job = make_job(root, start, PARAMS, {"compile": True, "activation_checkpointing": checkpointing})
    found = [line["train/loss"] for line in run_training(job).history]
    assert found == pytest.approx(expected, abs=TOLERANCE)
    assert counts["stats"]["unique_graphs"] > 0
    assert not counts["unimplemented"]
    assert counts["stats"]["unique_graphs"] <= 16  # parts of a block, with and without gradient: not one for each row


def test_bfloat16_ways_agree(root: Path, start: Manifest) -> None:
    """Activations of bfloat16 depend on what is computed together: the losses agree as far as that."""
    curves = {}
    for name in ("one pair at a time", "all at once", "packed, prompts repeated", "all blocks recomputed"):
        (root / name).mkdir()
        (root / name / "data").symlink_to(root / "data")
        params = {**PARAMS, "dtype": "bfloat16", "learning_rate": 1e-3}
        curves[name] = [
            line["train/loss"] for line in run_training(make_job(root / name, start, params, WAYS[name])).history
        ]
    first, *others = curves.values()
    for other in others:
        assert other == pytest.approx(first, abs=0.02)

"""Every objective in the training loop: it trains, and how the work is arranged changes no loss."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from pipeline.config.needs import objective_needs
from pipeline.config.objective import SPECS
from pipeline.config.train import TrainParams
from pipeline.models.manifest import Manifest
from pipeline.train.order import shuffled_order
from pipeline.train.pairs import TrainedPair, TrainedResponse
from pipeline.train.run import run_training
from pipeline.train.stream import PairArtifacts, open_split
from tests.train.tiny import losses, make_job, make_rows, make_third, write_split

SHORT = {"epochs": 1, "max_steps": 4, "beta": 0.3}
AT_START = {"dpo", "twdpo", "twdpo_length_normalized", "tdpo1", "tdpo2", "tisdpo", "cdpo_positionwise"}
"""Objectives whose loss is log 2 where the policy is its reference (METHODS 7, no. 1)."""


@pytest.fixture
def root(tmp_path: Path, start: Manifest) -> Path:
    """22 train and 5 validation pairs with weights of 0 and 1 on some tokens, and third responses."""
    for split, number, seed in (("train", 22, 0), ("validation", 5, 1)):
        rows = make_rows(start, number, seed=seed)
        rows["third"] = make_third(rows, start, seed)
        write_split(tmp_path / "data", split, rows)
    return tmp_path


def trained(root: Path, start: Manifest, objective: str, runtime: dict[str, Any], **params: Any) -> list[float]:
    folder = "-".join(["work", objective, *map(str, runtime.values())])
    job = make_job(root, start, {**SHORT, "objective": objective, **params}, runtime)
    job = replace(job, work=root / folder, artifacts=artifacts(root, job.params))
    return losses(run_training(job).history)


def artifacts(root: Path, train: TrainParams) -> PairArtifacts:
    """What the stages leave for an objective with its settings."""
    whole, needs = PairArtifacts.below(root / "data"), objective_needs(train)
    return PairArtifacts(
        whole.tokens,
        whole.aligned,
        whole.reference if "ref_logps" in needs else None,
        whole.third if needs & {"anchor", "gold", "kl_pairs"} else None,
    )


@pytest.mark.parametrize("objective", sorted(SPECS))
def test_one_trajectory_however_the_work_is_arranged(objective: str, root: Path, start: Manifest) -> None:
    one = trained(root, start, objective, {"micro_batch_tokens": 1, "share_prompts": False})
    together = trained(root, start, objective, {"micro_batch_tokens": 4096})
    assert one == pytest.approx(together, abs=5e-5)
    assert len(set(one)) > 3  # nothing moves in the first step of the warm-up
    if objective in AT_START:
        assert one[0] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize(
    ("objective", "settings", "plain"),
    [("tidpo", {"length_normalized": False, "gamma": 0.0}, "twdpo"), ("tisdpo", {"alpha": 0.0}, "twdpo")],
)
def test_a_part_of_weight_0_is_not_computed(
    objective: str, settings: dict[str, Any], plain: str, root: Path, start: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No anchor is read and no reference model opened; what is left is the objective without them."""
    monkeypatch.setattr("pipeline.train.run.Training._open_reference", None)
    runtime = {"micro_batch_tokens": 4096}
    found = trained(root, start, objective, runtime, settings=settings)
    assert found == trained(root, start, plain, runtime)


@pytest.mark.parametrize("objective", ["tdpo2", "tisdpo", "tidpo_tdpo2"])
def test_the_adapters_reference_is_the_start_without_a_second_model(
    objective: str, root: Path, start: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With LoRA the reference is the policy with its adapters off: the losses of a second model."""
    lora = {"lora": {"rank": 4, "alpha": 8}}
    off = trained(root, start, objective, {"micro_batch_tokens": 64}, **lora)
    monkeypatch.setattr("pipeline.train.run.AdapterOff", lambda policy: second_model(start))
    assert trained(root, start, objective, {"micro_batch_tokens": 65}, **lora) == pytest.approx(off, abs=1e-6)


def second_model(start: Manifest) -> Any:
    from pipeline.models.load import load_model
    from pipeline.models.logps import LogProbModel

    return LogProbModel(load_model(start, "float32", torch.device("cpu")))


def plain_losses(
    root: Path, start: Manifest, params: TrainParams, loss_of: Callable[[Any, Sequence[TrainedPair]], Tensor]
) -> list[float]:
    """Four steps of transformers' eager model under torch's AdamW; `loss_of` a policy and a global batch of four."""
    stream = open_split(PairArtifacts.below(root / "data"), "train")
    order = shuffled_order(params.seed, 0, stream.shard_rows)
    model = AutoModelForCausalLM.from_pretrained(start.path, attn_implementation="eager")
    optimizer = torch.optim.AdamW(model.parameters(), lr=params.learning_rate, weight_decay=0.0)
    found = []
    for step in range(4):
        for group in optimizer.param_groups:
            group["lr"] = params.learning_rate * 0.5 * (1 + math.cos(math.pi * step / 4))
        loss = loss_of(model, stream.block(order, 4 * step, 4 * step + 4))
        found.append(loss.item())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), params.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    return found


def test_kto_s_baseline_is_that_of_the_global_batch(root: Path, start: Manifest) -> None:
    """z over the whole batch: KTO as METHODS 5 has it."""
    found = trained(root, start, "kto", {"micro_batch_tokens": 1}, warmup_ratio=0.0)
    params = make_job(root, start, {**SHORT, "warmup_ratio": 0.0}).params

    def kto(model: Any, pairs: Sequence[TrainedPair]) -> Tensor:
        with torch.no_grad():
            mismatched = torch.stack([ratio(model, pair, pair.third, plain=True) for pair in pairs])
        z = mismatched.mean().clamp(min=0)
        total = torch.zeros(())
        for pair in pairs:
            won, lost = ratio(model, pair, pair.chosen), ratio(model, pair, pair.rejected)
            total = total + (1 - torch.sigmoid(params.beta * (won - z))) / 2
            total = total + (1 - torch.sigmoid(params.beta * (z - lost))) / 2
        return total / 4

    assert found[:4] == pytest.approx(plain_losses(root, start, params, kto), abs=5e-5)


@pytest.mark.parametrize("objective", ["tdpo1", "tdpo2", "tisdpo"])
def test_kls_are_of_the_objective_s_direction(objective: str, root: Path, start: Manifest) -> None:
    """Whole distributions of two models: TDPO takes KL(ref || policy), TIS-DPO KL(policy || ref) (METHODS 4.1, 4.2)."""
    settings = {} if objective == "tdpo1" else {"alpha": 2.0}
    changes = {"warmup_ratio": 0.0, "learning_rate": 0.01}
    found = trained(root, start, objective, {"micro_batch_tokens": 64}, settings=settings, **changes)
    params = make_job(root, start, {**SHORT, **changes}).params
    reference = AutoModelForCausalLM.from_pretrained(start.path, attn_implementation="eager").requires_grad_(False)

    def loss_of(reverse: bool) -> Callable[[Any, Sequence[TrainedPair]], Tensor]:
        def loss(model: Any, pairs: Sequence[TrainedPair]) -> Tensor:
            total = torch.zeros(())
            for pair in pairs:
                kls = []
                for response in (pair.chosen, pair.rejected):
                    policy, start_s = (distributions(of, pair, response) for of in (model, reference))
                    one, other = (policy, start_s) if reverse else (start_s, policy)
                    kl = (one.exp() * (one - other)).sum(-1)
                    weights = response.length * torch.tensor(response.weights) if objective == "tisdpo" else 1.0
                    kls.append((weights * kl).sum())
                won, lost = ratio(model, pair, pair.chosen), ratio(model, pair, pair.rejected)
                if objective == "tdpo1":
                    inner = won - lost - (kls[1] - kls[0])
                elif objective == "tdpo2":
                    inner = won - lost - 2.0 * (kls[1] - kls[0].detach())
                else:
                    inner = won - lost - 2.0 * (kls[0] - kls[1])
                total = total - torch.nn.functional.logsigmoid(params.beta * inner)
            return total / 4

        return loss

    reverse = objective == "tisdpo"
    assert found[:4] == pytest.approx(plain_losses(root, start, params, loss_of(reverse)), abs=5e-5)
    assert found[:4] != pytest.approx(plain_losses(root, start, params, loss_of(not reverse)), abs=5e-4)


def distributions(model: Any, pair: TrainedPair, response: TrainedResponse) -> Tensor:
    """Log-probs [T, V] where each token of a response stands."""
    ids = torch.from_numpy(np.concatenate([pair.prompt_ids, response.ids])).long()[None]
    return model(input_ids=ids, use_cache=False).logits[0, len(pair.prompt_ids) - 1 : -1].log_softmax(-1)


def ratio(model: Any, pair: TrainedPair, response: TrainedResponse | None, plain: bool = False) -> Tensor:
    """|y| sum_t a_t r_t of one response alone in its row; `plain`: sum_t r_t."""
    assert response is not None
    assert response.ref_logps is not None
    ids = torch.tensor(response.ids.tolist())
    logps = distributions(model, pair, response).gather(-1, ids[:, None])[:, 0]
    ratios = logps - torch.tensor(response.ref_logps)
    return ratios.sum() if plain else response.length * (torch.tensor(response.weights) * ratios).sum()


def test_a_flipped_pair_is_trained_with_chosen_for_rejected(root: Path, start: Manifest, tmp_path: Path) -> None:
    rows = make_rows(start, 22)
    for row in rows["aligned"]:
        row["flipped"] = True
    write_split(tmp_path / "flipped" / "data", "train", rows)
    [pair] = open_split(PairArtifacts.below(tmp_path / "flipped" / "data"), "train").block(
        shuffled_order(0, 0, [5, 5, 5, 5, 2]), 0, 1
    )
    [straight] = open_split(PairArtifacts.below(root / "data"), "train").block(
        shuffled_order(0, 0, [5, 5, 5, 5, 2]), 0, 1
    )
    assert pair.pair_id == straight.pair_id
    for one, other in ((pair.chosen, straight.rejected), (pair.rejected, straight.chosen)):
        assert one.ids.tolist() == other.ids.tolist()
        assert one.weights.tolist() == other.weights.tolist()


def test_pairs_without_a_third_response_are_left_out(root: Path, start: Manifest, tmp_path: Path) -> None:
    rows = make_rows(start, 7)
    rows["third"] = make_third(rows, start)[2:]
    write_split(tmp_path / "some" / "data", "train", rows)
    stream = open_split(PairArtifacts.below(tmp_path / "some" / "data"), "train")
    assert len(stream) == 5
    assert stream.shard_rows == [3, 2]

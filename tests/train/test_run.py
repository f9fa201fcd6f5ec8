"""Whole runs on a tiny model: they learn, and neither micro-batches, recomputation nor resuming change the curve."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.errors import CheckpointError, DataError, ModelError, NonFiniteError, ShardError
from pipeline.models.load import load_model
from pipeline.models.logps import LogProbModel
from pipeline.models.manifest import Manifest
from pipeline.objectives import registry
from pipeline.objectives.twdpo import twdpo
from pipeline.train.checkpoint import Checkpoints, TrainState
from pipeline.train.fsdp import process_group
from pipeline.train.run import Job, run_training
from pipeline.train.stream import PairArtifacts
from tests.train.tiny import SCHEMAS, TEMPLATE, interrupt_once, loss_curves, losses, make_job, make_rows, write_split


def finished(job: Job) -> TrainState:
    run_training(job)
    checkpoints = Checkpoints(job.work / "checkpoints", job.depends)
    return checkpoints.read_state(checkpoints.steps()[-1])


def master_weights(job: Job, start: Manifest, step: int) -> Any:
    """A model with the weights of a checkpoint."""
    policy = LogProbModel(load_model(start, "float32", "cpu"))
    with process_group(torch.device("cpu")):
        Checkpoints(job.work / "checkpoints", job.depends).load_model(step, policy)
    return policy.model


def test_it_learns_and_keeps_the_best_checkpoint(root: Path, start: Manifest) -> None:
    job = make_job(root, start, {"epochs": 4})
    state = finished(job)
    summary = run_training(job).summary  # a second time: nothing is left to train, the policy is written again
    assert state.step == 20
    assert (state.epoch, state.pairs_consumed) == (4, 0)
    assert summary["last_tenth"]["loss"] < 0.5 * summary["first_tenth"]["loss"]
    assert summary["last_tenth"]["rewards/accuracies"] == 1.0
    validation = {line["step"]: line["validation/loss"] for line in state.history if "validation/loss" in line}
    assert list(validation) == [3, 6, 9, 12, 15, 18, 20]
    assert summary["kept_step"] == min(validation, key=lambda step: validation[step])
    assert summary["validation"]["loss"] == min(validation.values())
    assert summary["kept_step"] in Checkpoints(job.work / "checkpoints", job.depends).steps()


def test_every_step_has_every_figure(root: Path, start: Manifest) -> None:
    state = finished(make_job(root, start, {"max_steps": 3, "warmup_ratio": 0.5}))
    figures = {
        *("loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"),
        *("plain/margins", "plain/accuracies", "grad_norm", "learning_rate", "seconds", "tokens_per_s"),
        "memory_mib",
    }
    for line in state.history:
        assert {name for name in line if name.startswith("train/")} == {f"train/{name}" for name in figures}
    assert state.history[0]["train/loss"] == pytest.approx(0.693147, abs=1e-5)
    assert [line["train/learning_rate"] for line in state.history] == pytest.approx([0, 1.5e-3, 3e-3])


def test_the_policy_is_a_transformers_folder_with_the_best_weights(root: Path, start: Manifest) -> None:
    job = make_job(root, start, {"epochs": 4, "best_metric": "accuracy"})
    summary = run_training(job).summary
    assert summary["kept_step"] < 20  # or the test would not tell the best from the last
    folder = job.work / "policy"
    names = {item.name for item in folder.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= names
    assert AutoTokenizer.from_pretrained(folder).chat_template == TEMPLATE
    policy = AutoModelForCausalLM.from_pretrained(folder)
    assert policy.lm_head.weight is policy.model.embed_tokens.weight
    assert policy.dtype == torch.float32

    weights = master_weights(job, start, summary["kept_step"])
    for name, value in policy.state_dict().items():
        assert torch.equal(value, weights.state_dict()[name]), name


def test_the_manifest_s_chat_template_goes_into_the_policy(root: Path, start: Manifest) -> None:
    other = replace(start, chat_template="{{ messages[0].content }}")
    run_training(make_job(root, other, {"max_steps": 1}))
    assert AutoTokenizer.from_pretrained(root / "work" / "policy").chat_template == "{{ messages[0].content }}"


@pytest.fixture
def plain_curve(root: Path, start: Manifest, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    job = make_job(root, start)
    return losses(finished(replace(job, work=tmp_path_factory.mktemp("plain"))).history)


def test_recomputation_can_be_turned_off_and_on_between_runs(root: Path, start: Manifest) -> None:
    on, off = (make_job(root, start, runtime={"activation_checkpointing": switch}) for switch in ("full", "none"))
    history = run_training(on).history
    weights = load_file(on.work / "policy" / "model.safetensors")
    assert weights.keys() == load_file(start.path / "model.safetensors").keys()
    *_, newest = Checkpoints(on.work / "checkpoints", on.depends).steps()
    shutil.rmtree(on.work / "checkpoints" / f"step-{newest:08d}")
    assert losses(run_training(off).history) == pytest.approx(losses(history), abs=2e-5)
    for name, value in load_file(off.work / "policy" / "model.safetensors").items():
        assert torch.allclose(value, weights[name], atol=1e-5), name


def test_the_seed_changes_the_order_and_so_the_curve(root: Path, start: Manifest, plain_curve: list[float]) -> None:
    assert losses(finished(make_job(root, start, {"seed": 1})).history) != pytest.approx(plain_curve, abs=1e-3)


def test_bfloat16(root: Path, start: Manifest, plain_curve: list[float]) -> None:
    write_split(root / "data", "train", make_rows(start, 22, dtype="bfloat16"))
    write_split(root / "data", "validation", make_rows(start, 5, seed=1, dtype="bfloat16"))
    job = make_job(root, start, {"dtype": "bfloat16"})
    state = finished(job)
    assert losses(state.history) == pytest.approx(plain_curve, abs=0.05)
    assert losses(state.history) != plain_curve
    assert AutoModelForCausalLM.from_pretrained(job.work / "policy", dtype="auto").dtype == torch.bfloat16
    norm = master_weights(job, start, state.step).model.norm.weight
    assert not torch.equal(norm, norm.bfloat16().float())  # the master weights are not rounded to bfloat16


def test_the_length_normalized_objective_runs(root: Path, start: Manifest) -> None:
    state = finished(make_job(root, start, {"objective": "twdpo_length_normalized", "beta": 4.0, "epochs": 4}))
    assert state.history[-1]["train/loss"] < 0.4


def test_refused_pairs_are_trained_without(root: Path, start: Manifest) -> None:
    rows = make_rows(start, 22)
    rows["aligned"] = rows["aligned"][:3] + rows["aligned"][9:]
    write_split(root / "data", "train", rows)
    summary = run_training(make_job(root, start)).summary
    assert summary["pairs"] == 16
    assert summary["steps"] == 8


def test_no_validation_pairs_keeps_the_last_step(root: Path, start: Manifest) -> None:
    write_split(root / "data", "validation", {name: [] for name in SCHEMAS})
    summary = run_training(make_job(root, start, {"max_steps": 4})).summary
    assert summary["kept_step"] == 4
    assert summary["validation"] == {}


@pytest.mark.parametrize("step", [1, 5, 9])
def test_a_resumed_run_goes_on_exactly(
    root: Path, start: Manifest, plain_curve: list[float], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    curves = loss_curves(make_job(root, start))
    done = interrupt_once(monkeypatch, step)
    job = make_job(root, start)
    with pytest.raises(KeyboardInterrupt):
        run_training(job)
    assert losses(finished(job).history) == plain_curve
    assert step - done[step + 1] <= 1  # checkpoints come every two steps, and where validation improved
    assert done[step + 1 :] == list(range(done[step + 1], 10))
    assert loss_curves(job) == curves


def test_a_checkpoint_of_another_run_is_refused_and_the_difference_named(root: Path, start: Manifest) -> None:
    run_training(make_job(root, start, {"max_steps": 2}))
    with pytest.raises(
        CheckpointError, match=r"params\.beta: 0\.5 there, 0\.25 here.*params\.max_steps: 2 there, null"
    ):
        run_training(make_job(root, start, {"beta": 0.25}))
    other = make_job(root, start, {"max_steps": 2})
    with pytest.raises(CheckpointError, match=r"inputs\.tokens: \"t\" there, \"u\" here"):
        run_training(replace(other, depends={**other.depends, "inputs": {"tokens": "u"}}))


def test_a_policy_that_is_not_the_reference_is_stopped_at_a_named_pair(root: Path, start: Manifest) -> None:
    rows = make_rows(start, 22)
    for row in rows["reference"]:
        row["rejected_logps"][1] += 0.01 if row["pair_id"] == "pair-0-004" else 1e-6
    write_split(root / "data", "train", rows)
    job = make_job(root, start, {"global_batch_pairs": 22})
    with pytest.raises(ModelError, match=r"pair-0-004: before the first step .* rejected token differs by 0\.01 "):
        run_training(job)
    assert not (job.work / "policy").exists()
    run_training(make_job(root, start, {"global_batch_pairs": 22, "reference_tolerance": 0.1}))


def test_a_weight_that_is_not_a_number_is_named(root: Path, start: Manifest) -> None:
    rows = make_rows(start, 22)
    rows["aligned"][9]["chosen_weights"][0] = float("nan")
    write_split(root / "data", "train", rows)
    with pytest.raises(NonFiniteError, match=r"aligned/train/part-00001.parquet: chosen_weights of pair pair-0-009"):
        run_training(make_job(root, start))


def test_a_loss_that_is_not_finite_names_its_pair_and_leaves_the_checkpoint(
    root: Path, start: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(root, start)
    good = finished(replace(job, work=root / "good"))

    def broken(pairs: Any, beta: float, settings: Any) -> Any:
        made = twdpo(pairs, beta, settings)
        calls.append(None)
        broken_at = torch.arange(len(made.losses)) == (0 if len(calls) > 12 else -1)
        found = torch.where(broken_at, float("nan"), made.losses)
        return type(made)(found, made.chosen_rewards, made.rejected_rewards)

    calls: list[None] = []
    monkeypatch.setitem(registry.OBJECTIVES, "twdpo", broken)
    with pytest.raises(NonFiniteError, match=r"step \d: loss or rewards are not finite for pair pair-0-0\d\d\."):
        run_training(job)
    monkeypatch.undo()
    checkpoints = Checkpoints(job.work / "checkpoints", job.depends)
    assert checkpoints.steps()
    assert losses(finished(job).history) == losses(good.history)  # the run goes on from there once repaired


def test_a_gradient_that_is_not_finite_names_the_step_s_pairs(
    root: Path, start: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steep(pairs: Any, beta: float, settings: Any) -> Any:
        made = twdpo(pairs, beta, settings)
        # The square root of 0 has the value 0 and an infinite slope.
        return type(made)(made.losses + (made.losses - made.losses).sqrt(), made.chosen_rewards, made.rejected_rewards)

    monkeypatch.setitem(registry.OBJECTIVES, "twdpo", steep)
    with pytest.raises(NonFiniteError, match=r"step 0: the gradient is not finite over pairs (pair-0-0\d\d(, )?){4}\."):
        run_training(make_job(root, start))


def test_too_few_pairs_for_one_batch(root: Path, start: Manifest) -> None:
    with pytest.raises(DataError, match=r"22 usable pairs, fewer than train\.global_batch_pairs \(23\)"):
        run_training(make_job(root, start, {"global_batch_pairs": 23}))


def test_missing_artifacts_are_named_before_the_model_is_loaded(root: Path, start: Manifest) -> None:
    nothing = replace(start, path=root / "no-model")
    (root / "data" / "reference").rename(root / "elsewhere")
    with pytest.raises(Exception, match="reference/train: no shards"):
        run_training(make_job(root, nothing))
    assert PairArtifacts.below(root / "data").tokens.shards("train")


def test_artifacts_of_another_objective_are_named_before_the_model_is_loaded(root: Path, start: Manifest) -> None:
    nothing = replace(start, path=root / "no-model")
    with pytest.raises(ShardError, match=r"data/third: was left empty, but train\.objective needs .* of kind kl_pairs"):
        run_training(make_job(root, nothing, {"objective": "kto"}))

"""Training adapters: peft's own model under plain autograd is the reference; whole runs resume, and share the work."""

import json
import multiprocessing
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.checkpoint import FileSystemReader

from pipeline.config.train import LoraParams
from pipeline.errors import ConfigError
from pipeline.models.load import load_model
from pipeline.models.logps import LogProbModel
from pipeline.models.manifest import Manifest
from pipeline.models.packed.layout import pack
from pipeline.train.learner import Learner
from pipeline.train.lora import adapter_off, add_adapters
from pipeline.train.run import Job, run_training
from tests.train.lora import LEARN, LINEAR, LORA, items, logps, rough, training
from tests.train.tiny import PARAMS, interrupt_once, losses, make_job, make_rows

__all__ = ["rough"]


def plain_logps(model: nn.Module, prompt: Any, response: Any) -> Tensor:
    """The log-probs [T] of a response by the whole logits, one sequence at a time."""
    ids = torch.tensor([[*prompt, *response]])
    found = model(input_ids=ids).logits[0].log_softmax(-1)
    return found[len(prompt) - 1 : -1].gather(1, ids[0, len(prompt) :, None])[:, 0]


def trained_state(policy: LogProbModel) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in policy.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_before_the_first_step_the_policy_is_the_start_bit_for_bit(start: Manifest, dtype: str) -> None:
    policy = LogProbModel(load_model(start, dtype, "cpu"))
    before = logps(policy)
    state = torch.random.get_rng_state()
    add_adapters(policy.model, LoraParams(), 1)
    assert torch.equal(logps(policy), before)
    assert torch.equal(torch.random.get_rng_state(), state)
    trained = trained_state(policy)
    assert len(trained) == 2 * 2 * len(LINEAR)
    assert all(".lora_" in name and parameter.dtype == torch.float32 for name, parameter in trained.items())
    assert policy.model.model.norm.weight.dtype == getattr(torch, dtype)


@pytest.mark.parametrize("rslora", [False, True])
def test_gradients_are_those_of_peft_s_own_model(start: Manifest, rslora: bool) -> None:
    policy = LogProbModel(load_model(start, "float32", "cpu"))
    add_adapters(policy.model, LoraParams(rank=4, alpha=8, target_modules=["q_proj", "up_proj"], use_rslora=rslora), 3)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"], use_rslora=rslora)
    torch.manual_seed(3)
    theirs = get_peft_model(load_model(start, "float32", "cpu"), config)
    ours, expected = trained_state(policy), dict(theirs.named_parameters())
    assert len(ours) == 8
    for name, parameter in ours.items():
        other = expected[f"base_model.{name}"]
        assert torch.equal(parameter, other), name
        if "lora_B" in name:  # at 0 the gradient of A is 0 too
            for tensor in (parameter, other):
                nn.init.normal_(tensor, std=0.1, generator=torch.Generator().manual_seed(len(name)))
    factors = torch.linspace(-1, 1, 33)
    chosen = items()
    policy(pack(chosen, True)).mul(factors).sum().backward()
    plain = torch.cat([plain_logps(theirs, item.prompt_ids, ids) for item in chosen for ids in item.responses])
    plain.mul(factors).sum().backward()
    for name, parameter in ours.items():
        other = expected[f"base_model.{name}"]
        assert parameter.grad is not None
        assert other.grad is not None
        assert other.grad.abs().max() > 1e-3
        assert (parameter.grad - other.grad).abs().max() < 1e-5 * other.grad.abs().max(), name


def test_two_steps_are_those_of_peft_s_own_model_with_plain_autograd(root: Path, start: Manifest) -> None:
    params = {
        # A large epsilon: where a gradient is next to nothing its rounding would decide over the step.
        **{**LEARN, "seed": 7, "global_batch_pairs": 22, "epochs": 2, "warmup_ratio": 0.0, "adam_epsilon": 1e-4},
        **{"weight_decay": 0.3, "max_grad_norm": 0.05},
    }
    job = make_job(root, start, params)
    history = run_training(job).history

    torch.manual_seed(7)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=LINEAR)
    theirs = get_peft_model(load_model(start, "float32", "cpu"), config)
    trained = [parameter for parameter in theirs.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, eps=1e-4, weight_decay=0.3)
    rows = make_rows(start, 22)
    for step, rate in enumerate([1e-2, 5e-3]):  # half a cosine over two steps
        optimizer.param_groups[0]["lr"] = rate
        total = torch.zeros(())
        for tokens, aligned, reference in zip(
            *(rows[name] for name in ("tokens", "aligned", "reference")), strict=True
        ):
            rewards = {}
            for name in ("chosen", "rejected"):
                ratios = plain_logps(theirs, tokens["prompt_ids"], tokens[f"{name}_ids"])
                ratios = ratios - torch.tensor(reference[f"{name}_logps"])
                weights = torch.tensor(aligned[f"{name}_weights"])
                rewards[name] = PARAMS["beta"] * aligned[f"{name}_length"] * (weights * ratios).sum()
            total = total - nn.functional.logsigmoid(rewards["chosen"] - rewards["rejected"]) / 22
        total.backward()
        norm = nn.utils.clip_grad_norm_(trained, 0.05)
        assert history[step]["train/loss"] == pytest.approx(total.item(), abs=2e-6)
        assert history[step]["train/grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
        assert norm > 0.05
        optimizer.step()
        optimizer.zero_grad()

    saved = load_file(job.work / "policy" / "adapter_model.safetensors")
    expected = {name: value for name, value in theirs.state_dict().items() if "lora_" in name}
    assert saved.keys() == {name.replace(".default", "") for name in expected}
    for name, value in expected.items():
        assert torch.allclose(saved[name.replace(".default", "")], value, rtol=1e-4, atol=1e-5), name


def test_it_learns_and_only_adapters_change(root: Path, start: Manifest) -> None:
    job = make_job(root, start, {**LEARN, "epochs": 4})
    with training(job) as made:
        first, last = (made.summary()[f"{part}_tenth"]["loss"] for part in ("first", "last"))
        assert last < 0.5 * first
        groups = made._learner.optimizer.param_groups
        assert sum(len(group["params"]) for group in groups) == 2 * 2 * len(LINEAR)
        weights = load_model(start, "float32", "cpu").state_dict()
        for name, value in made.policy.model.state_dict().items():
            if ".lora_" not in name:
                assert torch.equal(value, weights[name.replace(".base_layer", "")]), name
        *_, newest = (job.work / "checkpoints").iterdir()
    names = FileSystemReader(newest).read_metadata().state_dict_metadata
    assert {name.partition(".")[0] for name in names} == {"model", "optimizer"}
    assert all(".lora_" in name for name in names if name.startswith(("model.", "optimizer.state.")))
    assert len([name for name in names if name.startswith("model.")]) == 2 * 2 * len(LINEAR)


def test_switched_off_the_policy_is_its_start_also_after_training(root: Path, start: Manifest) -> None:
    expected = logps(LogProbModel(load_model(start, "float32", "cpu")))
    done = []
    whole_step = Learner.step

    def step(self: Learner, index: int, pairs: Any) -> Any:
        if index in (3, 6):
            # First switched off, where FSDP has not gathered the weights yet; its copies are made then.
            with adapter_off(self.model):
                off = logps(self.model)  # type: ignore[arg-type]
                assert not self.model(pack(items(), True)).requires_grad
            on = logps(self.model)  # type: ignore[arg-type]
            assert torch.equal(off, expected)
            assert (on - expected).abs().max() > 1e-2
            done.append(index)
        return whole_step(self, index, pairs)

    plain = run_training(replace(make_job(root, start, LEARN), work=root / "plain")).history
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "step", step)
        history = run_training(make_job(root, start, LEARN)).history
    assert done == [3, 6]
    assert losses(history) == losses(plain)  # the look at the reference leaves no trace


def test_it_is_switched_on_again_after_an_error(start: Manifest) -> None:
    policy = LogProbModel(load_model(start, "float32", "cpu"))
    add_adapters(policy.model, LoraParams(), 1)
    for name, parameter in trained_state(policy).items():
        nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
    on = logps(policy)
    with pytest.raises(KeyError), adapter_off(policy), adapter_off(policy):
        raise KeyError
    assert torch.equal(logps(policy), on)
    assert all(".lora_" in name for name in trained_state(policy))


@pytest.mark.parametrize("step", [1, 5])
def test_a_resumed_run_goes_on_exactly(root: Path, start: Manifest, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    plain = replace(make_job(root, start, LEARN), work=root / "plain")
    expected = run_training(plain).history
    done = interrupt_once(monkeypatch, step)
    job = make_job(root, start, LEARN)
    with pytest.raises(KeyboardInterrupt):
        run_training(job)
    assert losses(run_training(job).history) == losses(expected)
    assert 0 < len(done) - 10 <= 2  # at most one step was done again
    name = "policy/adapter_model.safetensors"
    assert (job.work / name).read_bytes() == (plain.work / name).read_bytes()


def _one_of_two(rank: int, port: int, job: Job) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    run_training(job)


def run_in_two(job: Job) -> list[dict[str, float]]:
    """Train in two processes, as torchrun would; every step's figures."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.killed", "torch.distributed.checkpoint", "dvclive"])
    processes = [context.Process(target=_one_of_two, args=(rank, port, job)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
        assert process.exitcode == 0
    history: list[dict[str, float]] = json.loads((job.work / "finished.json").read_text())["history"]
    return history


@pytest.mark.parametrize(
    ("dtype", "recompute", "tolerance"), [("float32", "full", 1e-4), ("bfloat16", "none", 0.05)], ids=str
)
def test_two_processes_are_one(
    root: Path, rough: Path, start: Manifest, dtype: str, recompute: str, tolerance: float
) -> None:
    params = {**LEARN, "dtype": dtype, "lora": {**LORA, "merge": dtype == "bfloat16"}}
    where = root if dtype == "float32" else rough
    single = replace(make_job(where, start, params), work=root / "single", curves=root / "single-curves")
    expected = run_training(single).history
    job = replace(make_job(where, start, params, {"activation_checkpointing": recompute}), work=root / "double")
    assert losses(run_in_two(job)) == pytest.approx(losses(expected), abs=tolerance)
    name = "model.safetensors" if dtype == "bfloat16" else "adapter_model.safetensors"
    ours, theirs = (load_file(one.work / "policy" / name) for one in (job, single))
    assert {key: value.dtype for key, value in ours.items()} == {key: value.dtype for key, value in theirs.items()}
    if dtype == "float32":  # a rounded gradient next to 0 may send AdamW the other way
        for key, value in ours.items():
            assert torch.allclose(value, theirs[key], atol=tolerance), key


def test_bfloat16_holds_the_base_once_and_trains_float32_adapters(root: Path, rough: Path, start: Manifest) -> None:
    params = {**LEARN, "max_steps": 4}
    expected = run_training(replace(make_job(root, start, params), work=root / "plain")).history
    with training(make_job(rough, start, {**params, "dtype": "bfloat16"})) as made:
        assert losses(made.state.history) == pytest.approx(losses(expected), abs=0.05)
        for name, parameter in made.policy.named_parameters():
            trained = ".lora_" in name
            assert parameter.requires_grad == trained
            assert parameter.dtype == (torch.float32 if trained else torch.bfloat16), name
            if trained:
                assert not torch.equal(parameter, parameter.bfloat16().float()), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_modules": ["q_proj", "query", "c_attn"]}, r"target_modules: c_attn, query: .*it has down_proj, gate"),
        ({"target_modules": ["lm_head"]}, r"target_modules: lm_head: .*output head take no adapter"),
        ({"target_modules": ["embed_tokens"]}, r"train\.lora\.target_modules: embed_tokens: "),
        ({"target_modules": ["input_layernorm"]}, r"train\.lora\.target_modules: input_layernorm: "),
    ],
    ids=str,
)
def test_targets_that_do_not_exist_are_named_before_the_first_step(
    root: Path, start: Manifest, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(Learner, "step", lambda *_: pytest.fail("a step was made"))
    with pytest.raises(ConfigError, match=message):
        run_training(make_job(root, start, {**LEARN, "lora": {**LORA, **change}}))

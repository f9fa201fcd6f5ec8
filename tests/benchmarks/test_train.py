"""The logic of `make bench-train`, on a tiny policy with random weights."""

import json
import math
import subprocess
import sys
from argparse import Namespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks.train import compare, figures, parse
from benchmarks.train_search import Tried, grid, search, smallest
from benchmarks.train_workload import config, open_pairs, open_policy, save_reference, spread, with_reference, work

KEYS = [
    "pairs_per_s",
    "trl_pairs_per_s",
    "ratio",
    "ratio_without_prefix_sharing",
    "peak_mib",
    "trl_peak_mib",
    "loss_diff",
]
TINY = ["--model", "tiny", "--dtype", "float32", "--device", "cpu", "--threads", "1", "--pairs", "2", "--rounds", "1"]
ONE_SETTING = ["--global-batch", "1", "--trl-micro-batches", "1", "--checkpointing", "off", "--no-variants"]


@pytest.mark.timeout(1200)
def test_trl_and_this_trainer_give_the_same_losses_and_are_timed(root, tmp_path):
    options = [*TINY, *ONE_SETTING, "--micro-batch-tokens", "2048", "--sides", "trl,ours"]
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.train", *options], cwd=root, capture_output=True, text=True, timeout=1200
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    result = json.loads(ran.stdout.splitlines()[-1])
    assert list(result) == [*KEYS, "details"]
    assert result["ratio"] == pytest.approx(result["pairs_per_s"] / result["trl_pairs_per_s"])
    assert result["ratio_without_prefix_sharing"] is None
    assert result["peak_mib"] > 0
    assert result["trl_peak_mib"] > 0
    assert 0 <= result["loss_diff"] < 1e-4
    details = result["details"]
    assert 0 < details["grad_norm_diff"] < 1e-3
    assert all(len(losses) == 2 for losses in details["losses"].values())
    assert details["total_peaks_mib"]["trl"] > result["trl_peak_mib"]
    assert details["tokens"] > details["tokens_saved_by_sharing"] > 0
    assert set(details["machine"]) >= {"torch", "transformers", "trl"}


STEPS = {"losses": [0.9, 0.6], "grad_norms": [4.0, 5.0]}


@pytest.mark.parametrize(
    ("dtype", "losses", "grad_norms", "message"),
    [
        ("float32", [0.9, 0.6002], [4.0, 5.0], "global batch 1: the loss of ours is 0.6002, trl's 0.6"),
        ("float32", [0.9, 0.6], [4.0, 5.006], "global batch 1: the gradient's norm of ours is 5.006"),
        ("float32", [math.nan, 0.6], [4.0, 5.0], "global batch 0: the loss"),
        ("bfloat16", [1.06, 0.6], [4.0, 5.0], "global batch 0: the loss"),
        ("bfloat16", [0.9], [4.0], "ours took 1 steps, trl 2"),
    ],
)
def test_another_loss_or_gradient_stops_the_benchmark(dtype, losses, grad_norms, message):
    with pytest.raises(SystemExit, match=message) as stopped:
        compare({"trl": STEPS, "ours": {"losses": losses, "grad_norms": grad_norms}}, dtype)
    assert "nothing is timed" in str(stopped.value)


def test_differences_within_the_tolerance_are_reported():
    near = {"losses": [0.90005, 0.6], "grad_norms": [4.0, 5.002]}
    assert compare({"trl": STEPS, "ours": STEPS, "ours_unshared": near}, "float32") == pytest.approx((5e-5, 4e-4))


def test_a_policy_that_is_its_reference_cannot_be_compared():
    at_start = {"losses": [math.log(2), math.log(2) + 1e-4], "grad_norms": [4.0, 5.0]}
    with pytest.raises(SystemExit, match=r"too near its reference.*nothing is timed"):
        compare({"trl": at_start, "ours": at_start}, "float32")


def test_ratios_are_of_medians_and_only_of_sides_that_ran():
    seconds = {"trl": [8.0, 4.0, 9.0], "ours": [2.0, 1.0, 2.0], "ours_unshared": [4.0]}
    found = figures(seconds, {"trl": 5.0, "ours": 7.0}, 8, 1e-6)
    assert list(found.values()) == [4.0, 1.0, 4.0, 2.0, 7.0, 5.0, 1e-6]
    assert figures({"ours": [2.0]}, {"ours": 7.0}, 8, None)["ratio"] is None


def test_all_of_trls_settings_are_tried_and_its_best_is_one_that_a_user_has():
    given = parse([*TINY[:-4], "--dtype", "bfloat16", "--pairs", "8", "--global-batch", "4"])
    tried = []

    def measure(setting):
        tried.append(setting)
        if setting["micro_batch"] == 1 and not setting["gradient_checkpointing"]:
            return Tried(setting, failed="out of memory")
        seconds = setting["micro_batch"] + (setting["precision"] == "autocast") - 0.5 * setting["keep_freed_memory"]
        return Tried(setting, seconds - 0.1 * (setting["optimizer"] == "adamw_torch"), 9.0 - setting["micro_batch"])

    found = search("trl", given, measure)
    assert len(found) == len(tried) == 3 * 2 * 2 + 3
    assert {(each["precision"], each["micro_batch"], each["gradient_checkpointing"]) for each in tried} == {
        (precision, size, on) for precision in ("autocast", "bfloat16") for size in (1, 2, 4) for on in (False, True)
    }
    best = found[0].setting
    assert (best["precision"], best["micro_batch"], best["optimizer"]) == ("bfloat16", 1, "adamw_torch")
    assert not best["keep_freed_memory"]
    assert smallest(found).peak_mib == 5.0
    with pytest.raises(SystemExit, match="trl: no setting could run: out of memory"):
        search("trl", given, lambda setting: Tried(setting, failed="out of memory"))


def test_the_two_sides_of_this_trainer_differ_by_sharing_alone():
    given = parse([*TINY, "--global-batch", "2"])
    shared, unshared = grid("ours", given), grid("ours_unshared", given)
    assert len(shared) == 6
    assert [each | {"share_prompts": False} for each in shared] == unshared != shared


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sides", "trl,owrs"], "unknown 'owrs'; choose from trl, ours, ours_unshared"),
        (["--global-batch", "3"], "must be a multiple of --global-batch"),
        (["--lengths", "real"], "only the packaged model has a tokenizer"),
        (["--checkpointing", "maybe"], "choose off, on"),
    ],
)
def test_what_cannot_be_run_is_said_in_a_sentence(options, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse([*TINY, "--global-batch", "2", *options])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_missing_trl_or_missing_data_is_said_in_a_sentence(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("benchmarks.train.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        parse([*TINY, "--global-batch", "2"])
    assert "trl is not installed" in capsys.readouterr().err
    monkeypatch.setattr("benchmarks.train_workload.SHARED", tmp_path / "data")
    with pytest.raises(SystemExit, match=f"{tmp_path / 'data'} is not there"):
        open_pairs("real", 2, 0, 0)


def test_random_pairs_have_the_lengths_of_ultrafeedback_and_uniform_weights():
    pairs = open_pairs("ultrafeedback", 3000, 1000, 0)
    sizes = np.array([(len(pair.prompt_ids), len(pair.chosen.ids), len(pair.rejected.ids)) for pair in pairs])
    assert np.abs(sizes.mean(0) / [190, 270, 235] - 1).max() < 0.06
    assert (sizes[:, :1] + sizes[:, 1:]).max() == 2048
    chosen = pairs[0].chosen
    assert chosen.length == len(chosen.ids)
    assert chosen.weights == pytest.approx(1 / len(chosen.ids))


def test_the_search_has_pairs_of_all_lengths():
    pairs = open_pairs("ultrafeedback", 64, 1000, 0)
    chosen = spread(pairs, 8)
    ranks = [sorted(pair.tokens for pair in pairs).index(pair.tokens) // 8 for pair in chosen]
    assert ranks == list(range(8))


def test_the_policy_is_moved_from_its_reference_the_same_way_every_time():
    moved, again, start = (open_policy("tiny", 2, "cpu", 0, moved) for moved in (True, True, False))
    assert len(start.model.layers) == 2
    for (name, weight), other, first in zip(
        moved.named_parameters(), again.parameters(), start.parameters(), strict=True
    ):
        assert torch.equal(weight, other)
        if weight.ndim == 2:
            share = float((weight - first).square().mean().sqrt() / first.square().mean().sqrt())
            assert share == pytest.approx(0.02, rel=0.1), name


def test_reference_log_probs_come_back_to_their_pair(tmp_path):
    pairs = open_pairs("ultrafeedback", 2, 1000, 0)
    logps = [np.full(len(each.ids), index, np.float32) for index, each in
             enumerate(each for pair in pairs for each in (pair.chosen, pair.rejected))]  # fmt: skip
    save_reference(tmp_path / "reference.npz", pairs, logps)
    for index, pair in enumerate(with_reference(pairs, tmp_path / "reference.npz")):
        assert (pair.chosen.ref_logps == 2 * index).all()
        assert (pair.rejected.ref_logps == 2 * index + 1).all()


def test_operations_are_those_of_the_matrix_products():
    """Against a count of every matrix product by torch's own counter, attention's without the masked half."""
    from torch.utils.flop_counter import FlopCounterMode

    shape = config("tiny", None)
    [pair] = open_pairs("ultrafeedback", 1, 1000, 3)
    model = AutoModelForCausalLM.from_config(shape, attn_implementation="eager")
    prompt, responses = len(pair.prompt_ids), (len(pair.chosen.ids), len(pair.rejected.ids))
    counted = 0.0
    for length in responses:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            hidden = model.model(torch.ones(1, prompt + length, dtype=torch.long)).last_hidden_state
            model.lm_head(hidden[:, -length - 1 : -1])
        whole = 4 * shape.hidden_size * (prompt + length) ** 2 * shape.num_hidden_layers
        causal = 2 * shape.hidden_size * (prompt + length) * (prompt + length + 1) * shape.num_hidden_layers
        counted += counter.get_total_flops() - whole + causal
    found = work([pair], shape)
    # torch counts rotary embedding's one small product too.
    assert found.model_flops == pytest.approx(3 * counted, rel=1e-3)
    assert found.tokens == 2 * prompt + sum(responses) == found.shared_tokens + prompt
    alone = work([pair.__class__("p", pair.prompt_ids, pair.chosen, pair.chosen)], shape)
    assert alone.computed_flops < alone.model_flops


def test_settings_that_do_not_divide_the_global_batch_are_left_out():
    given = Namespace(global_batch=6, dtype="float32", checkpointing=["off"], trl_micro_batches=[1, 2, 4])
    assert [each["micro_batch"] for each in grid("trl", given)] == [1, 2]
    given.trl_micro_batches = [4]
    with pytest.raises(SystemExit, match="none of"):
        grid("trl", given)

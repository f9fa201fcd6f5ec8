"""The logic of `make bench-extract`, on a tiny judge with random weights."""

import json
import os
import subprocess
import sys
from argparse import Namespace

import numpy as np
import pytest
import torch

from benchmarks.extract import differences, figures, left_out
from benchmarks.extract_sides import Engine, Official, save
from benchmarks.workload import LONGEST, open_judge, open_workload
from pipeline.attention.vllm.check import ROW_TOLERANCE


def bench(root, *options):
    command = [sys.executable, "-m", "benchmarks.extract", "--judge", "tiny", "--dtype", "float32", "--device", "cpu"]
    small = ["--pairs", "2", "--rounds", "2", "--threads", "1", "--tuning-prompts", "2"]
    return subprocess.run([*command, *small, *options], cwd=root, capture_output=True, text=True, timeout=300)


def test_all_sides_agree_and_the_last_line_is_json(root):
    ran = bench(root)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "vllm: left out: it reads weights from files" in ran.stdout
    result = json.loads(ran.stdout.splitlines()[-1])
    for name in ("pairs_per_s", "vs_official", "vs_two_forwards", "peak_mib", "official_peak_mib"):
        assert result[name] > 0
    assert result["dtype"] == "float32"
    assert 0 < result["differences"]["engine"] < 1e-4
    assert 0 < result["largest_absolute_differences"]["engine"] < 1e-5
    assert {len(times) for times in result["seconds"].values()} == {2}
    assert result["engine"]["computed_tokens"] < result["engine"]["prompt_tokens"] == result["tokens"]


def test_one_side_alone_is_timed(root):
    ran = bench(root, "--sides", "engine", "--rounds", "1")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    result = json.loads(ran.stdout.splitlines()[-1])
    assert result["pairs_per_s"] > 0
    assert not {"vs_official", "vs_two_forwards", "official_peak_mib"} & set(result)


def test_an_unknown_side_is_refused(root):
    ran = bench(root, "--sides", "engine,offical")
    assert ran.returncode == 2
    assert "unknown 'offical'; choose from official" in ran.stderr


def test_ratios_are_of_medians_and_only_of_sides_that_ran():
    seconds = {"two_forwards": [3.0, 9.0, 4.0], "engine": [2.0, 1.0, 2.0]}
    found = figures(seconds, {"two_forwards": 5.0, "engine": 7.0}, pairs=6)
    assert found == {"pairs_per_s": 3.0, "vs_two_forwards": 2.0, "peak_mib": 7.0}
    assert figures({"official": [1.0]}, {"official": 5.0}, pairs=6) == {"official_peak_mib": 5.0}


def test_vllm_is_left_out_with_fewer_threads_than_cores():
    given = Namespace(judge="packaged", device="cpu", vllm_python=sys.executable, threads=os.cpu_count())
    assert left_out(given) == {}
    given.threads += 1
    assert "cores" in left_out(given)["vllm"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_row_of_another_layer_or_position_stops_the_benchmark(tmp_path, dtype):
    torch.set_num_threads(1)
    given = Namespace(judge="tiny", dtype=dtype, device="cpu")
    workload = open_workload("tiny", 2)
    right = Official(given, workload).run(workload.prompts)
    save(tmp_path / "official.npz", right)
    save(tmp_path / "engine.npz", Engine(given, workload).run(workload.prompts))
    share = differences(tmp_path, ["official", "two_forwards", "engine"], dtype)["engine"].share
    assert 0 < share < ROW_TOLERANCE[dtype] / 5
    model = open_judge("tiny", dtype, "cpu", "eager")
    for index, prompt in enumerate(workload.prompts):
        with torch.inference_mode():
            attentions = model(torch.tensor([prompt.input_ids]), output_attentions=True).attentions
        for layer, position in ((-2, -1), (-1, -2)):
            row = attentions[layer][0, :, position].float().mean(0).numpy()
            wrong = list(right["rows"])
            wrong[index] = np.concatenate([row[start:end] for start, end in prompt.spans])
            save(tmp_path / "engine.npz", {**right, "rows": wrong})
            with pytest.raises(SystemExit, match=f"judge prompt {index}: the row of engine .* nothing is timed"):
                differences(tmp_path, ["official", "engine"], dtype)


def test_the_engine_computes_the_header_in_every_round():
    torch.set_num_threads(1)
    workload = open_workload("tiny", 1)
    engine = Engine(Namespace(judge="tiny", dtype="float32", device="cpu"), workload)
    used = []
    for _ in range(2):
        engine.run(workload.prompts)
        used.append(engine.facts()["computed_tokens"])
    assert used[0] == used[1] >= max(len(prompt.input_ids) for prompt in workload.prompts)


def test_another_probability_or_a_score_that_is_no_number_stops_the_benchmark(tmp_path):
    right = {"rows": [np.full(3, 0.1), np.full(2, 0.2)], "probs": [np.array([0.4, 0.5])] * 2}
    save(tmp_path / "official.npz", right)
    save(tmp_path / "engine.npz", {**right, "probs": [right["probs"][0], np.array([0.4, 0.502])]})
    with pytest.raises(SystemExit, match="judge prompt 1: the probability"):
        differences(tmp_path, ["official", "engine"], "float32")
    assert differences(tmp_path, ["official", "engine"], "bfloat16")["engine"].absolute == pytest.approx(0.002)
    save(tmp_path / "engine.npz", {**right, "rows": [np.full(3, np.nan), right["rows"][1]]})
    with pytest.raises(SystemExit, match="judge prompt 0: the row"):
        differences(tmp_path, ["official", "engine"], "bfloat16")


def test_random_pairs_have_the_lengths_of_ultrafeedback():
    workload = open_workload("8b", 400)
    lengths = [len(prompt.input_ids) for prompt in workload.prompts]
    assert 870 < np.mean(lengths) < 1000
    assert max(lengths) <= LONGEST
    assert len(workload.header) == 213
    for first, second in zip(workload.prompts[::2], workload.prompts[1::2], strict=True):
        for a, b in zip(first.spans, second.spans, strict=True):
            assert first.input_ids[slice(*a)] == second.input_ids[slice(*b)]

"""The logic of `make bench-extract`, on a tiny judge with random weights."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.extract import differences
from benchmarks.workload import LONGEST, open_workload


def test_all_sides_agree_and_the_last_line_is_json(root):
    command = [sys.executable, "-m", "benchmarks.extract", "--judge", "tiny", "--dtype", "float32", "--device", "cpu"]
    options = ["--pairs", "2", "--rounds", "2", "--threads", "1", "--tuning-prompts", "2"]
    ran = subprocess.run([*command, *options], cwd=root, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    result = json.loads(ran.stdout.splitlines()[-1])
    for name in ("pairs_per_s", "vs_official", "vs_two_forwards", "peak_mib", "official_peak_mib"):
        assert result[name] > 0
    assert result["dtype"] == "float32"
    assert 0 < result["differences"]["engine"] < 1e-5
    assert {len(times) for times in result["seconds"].values()} == {2}
    assert result["engine"]["computed_tokens"] < result["engine"]["prompt_tokens"] == result["tokens"]


def test_a_side_with_other_rows_stops_the_benchmark(tmp_path):
    rows, probs = np.linspace(0, 1, 5), np.array([[0.4, 0.5]])
    np.savez(tmp_path / "official.npz", rows=rows, probs=probs)
    np.savez(tmp_path / "engine.npz", rows=rows + 1e-6, probs=probs)
    assert differences(tmp_path, ["official", "two_forwards", "engine"], 1e-5)["engine"] == pytest.approx(1e-6)
    np.savez(tmp_path / "engine.npz", rows=rows[::-1], probs=probs)
    with pytest.raises(SystemExit, match="nothing is timed"):
        differences(tmp_path, ["official", "engine"], 1e-5)


def test_random_pairs_have_the_lengths_of_ultrafeedback():
    workload = open_workload("8b", 400)
    lengths = [len(prompt.input_ids) for prompt in workload.prompts]
    assert 870 < np.mean(lengths) < 1000
    assert max(lengths) <= LONGEST
    assert len(workload.header) == 213
    for first, second in zip(workload.prompts[::2], workload.prompts[1::2], strict=True):
        for a, b in zip(first.spans, second.spans, strict=True):
            assert first.input_ids[slice(*a)] == second.input_ids[slice(*b)]

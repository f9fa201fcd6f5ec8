"""`extract` as a stage: the artifacts of both backends, from the same judge prompts."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from pipeline.io.artifact import Artifact
from pipeline.schemas.attention import ATTENTION, VERDICTS
from tests.e2e.conftest import TINY, Project
from tests.vllm.judge_prompts import ROOT


@pytest.fixture(scope="module")
def extracted(tmp_path_factory, default_model_dir):
    """{backend: a project after `extract`}, of 12 pairs of the sample and a tiny judge with heads of 32."""
    folder = tmp_path_factory.mktemp("project") / "repo"
    folder.mkdir()
    for name in ("pipeline", "stages", "data/sample"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "params.yaml", folder)
    tiny_judge(folder / "tiny", default_model_dir)
    project = Project(folder)
    runtime = {"runtime.threads": 2, "runtime.vllm_kv_cache_gib": 0.1}
    project.set(TINY | runtime | {"prepare.limit": 12, "extract.heads": "each"})
    for stage in ("model", "prepare", "needs", "render"):
        project.stage(stage)
    projects = {"transformers": project, "vllm": project.copy(tmp_path_factory.mktemp("vllm") / "repo")}
    for backend, of in projects.items():
        of.set({"runtime.backend": backend})
        of.stage("extract")
    return projects


def tiny_judge(folder, default_model_dir):
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(default_model_dir, local_files_only=True)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_both_backends_write_the_same_artifacts(extracted):
    for name, schema in (("attention", ATTENTION), ("verdicts", VERDICTS)):
        rows = {
            backend: [
                row
                for split in ("train", "validation", "test")
                for shard in Artifact(of.root / "data" / name, schema).shards(split)
                for row in shard.records()
            ]
            for backend, of in extracted.items()
        }
        assert len(rows["vllm"]) == len(rows["transformers"]) > 30
        for ours, theirs in zip(rows["vllm"], rows["transformers"], strict=True):
            assert ours.keys() == theirs.keys()
            for column, value in theirs.items():
                if column in ("round_1", "round_2", "prob_a", "prob_b"):
                    np.testing.assert_allclose(ours[column], value, atol=1e-5, err_msg=column)
                elif column != "verdict":  # the tiny judge's probabilities are near 1 / vocabulary, some of them equal
                    assert ours[column] == value, column


def test_the_shards_say_which_backend_made_them(extracted):
    for backend, of in extracted.items():
        shards = sorted((of.root / "data/attention").rglob("*.parquet"))
        assert shards
        for shard in shards:
            assert backend in str(pq.read_schema(shard).metadata)


def test_what_vllm_cannot_do_ends_the_stage_with_a_remedy(extracted, tmp_path):
    project = extracted["vllm"].copy(tmp_path / "repo")
    project.set({"extract.heads": "mean", "runtime.tensor_parallel": 3})
    said = project.stage("extract", fails=True)
    assert "`runtime.tensor_parallel: 3` does not divide the judge's 4 heads" in said
    assert "Traceback" not in said

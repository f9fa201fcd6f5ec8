"""Judge and policy with different tokenizers (paper, F.2): weights are carried over by characters."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.e2e.conftest import Project
from tests.models.tiny import ZEPHYR, byte_level

pytestmark = pytest.mark.e2e


def test_weights_reach_the_tokens_of_another_tokenizer(run_project: Project, tmp_path: Path) -> None:
    project = run_project.copy(tmp_path / "repo")
    tokenizer = byte_level()
    tokenizer.chat_template = ZEPHYR
    tokenizer.save_pretrained(project.root / "start")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=4096,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(project.root / "start")
    project.set({"model.start": {"source": "folder", "name": "start", "revision": None, "chat_template": None}})
    attention = project.files("data/attention")
    project.run("dvc", "repro", "reference", "realign")
    assert project.files("data/attention") == attention, "another policy start is no reason to judge again"
    metrics = json.loads((project.root / "reports" / "metrics" / "realign.json").read_text())
    assert metrics["by_characters"] is True
    assert metrics["train"]["chosen_matched_mass"] > 0.99
    aligned = pl.scan_parquet(project.root / "data" / "aligned" / "train").collect()
    tokens = pl.scan_parquet(project.root / "data" / "tokens" / "train").collect()
    for name in ("chosen", "rejected"):
        assert (aligned[f"{name}_weights"].list.len() == tokens[f"{name}_ids"].list.len()).all()
        assert (aligned[f"{name}_weights"].list.sum() - aligned[f"{name}_matched_mass"]).abs().max() < 1e-5

"""A tiny policy start, and the three artifacts that training joins, written as the stages write them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pipeline.config.needs import objective_needs
from pipeline.config.objective import third_kind
from pipeline.config.runtime import RuntimeParams
from pipeline.config.train import TrainParams
from pipeline.io.artifact import part_name
from pipeline.io.parquet import read_facts, read_table, write_table
from pipeline.models.load import load_model
from pipeline.models.logps import LogProbModel
from pipeline.models.manifest import Manifest, describe_files
from pipeline.models.packed.layout import Prompted
from pipeline.models.response_logps import response_logps
from pipeline.schemas.aligned import ALIGNED
from pipeline.schemas.base import RESPONSES
from pipeline.schemas.reference import REFERENCE
from pipeline.schemas.third import THIRD
from pipeline.schemas.tokens import TOKENS
from pipeline.train.learner import Learner
from pipeline.train.run import Job
from pipeline.train.stream import PairArtifacts
from tests.models.tiny import budget

VOCABULARY = 64
SCHEMAS = {"tokens": TOKENS, "aligned": ALIGNED, "reference": REFERENCE, "third": THIRD}
MADE = ("tokens", "aligned", "reference")
"""What `make_rows` makes; an artifact without rows of its own is written as skipped."""
TEMPLATE = "{% for message in messages %}<{{ message.role }}> {{ message.content }} </s> {% endfor %}"
PARAMS: dict[str, Any] = {
    "beta": 0.5,
    "learning_rate": 3e-3,
    "global_batch_pairs": 4,
    "epochs": 2,
    "eval_every_steps": 3,
    "checkpoint_every_steps": 2,
}
Rows = dict[str, list[dict[str, Any]]]
"""Rows by artifact's name."""


def save_start(folder: Path, seed: int = 0) -> Manifest:
    """A Llama of two blocks with a tied head, and a tokenizer with a chat template."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = {"<unk>": 0, "</s>": 1, **{f"w{index}": index for index in range(2, VOCABULARY)}}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    files, sizes = describe_files(folder, [item.name for item in folder.iterdir()])
    return Manifest("start", "folder", folder, None, None, files, sizes)


def make_rows(start: Manifest, pairs: int, seed: int = 0, prefix: str = "pair", dtype: str = "float32") -> Rows:
    """Pairs that can be learnt: chosen responses draw from low ids, rejected ones from high ids."""
    random = np.random.default_rng(seed)
    rows: Rows = {name: [] for name in MADE}
    for index in range(pairs):
        pair_id = f"{prefix}-{seed}-{index:03d}"
        prompt_ids = random.integers(2, VOCABULARY, 5).tolist()
        token_row: dict[str, Any] = {"pair_id": pair_id, "prompt_ids": prompt_ids, "prompt_cut": 0}
        aligned_row: dict[str, Any] = {"pair_id": pair_id, "flipped": False}
        for name, low, high in (("chosen", 2, 40), ("rejected", 20, VOCABULARY)):
            length = int(random.integers(3, 14))
            weights = random.dirichlet(np.ones(length))
            token_row |= {
                f"{name}_ids": random.integers(low, high, length).tolist(),
                f"{name}_offsets": [{"start": token, "end": token + 1} for token in range(length)],
                f"{name}_eos": False,
                f"{name}_cut": 0,
            }
            aligned_row |= {
                f"{name}_weights": weights.tolist(),
                f"{name}_length": float(length),
                f"{name}_matched_tokens": 1.0,
                f"{name}_matched_mass": 1.0,
            }
        rows["tokens"].append(token_row)
        rows["aligned"].append(aligned_row)
    model = LogProbModel(load_model(start, dtype, "cpu"))
    for row in rows["tokens"]:
        item = Prompted(row["prompt_ids"], [row[f"{name}_ids"] for name in RESPONSES])
        [[chosen, rejected]] = response_logps(model, [item], budget(4096))
        rows["reference"].append(
            {"pair_id": row["pair_id"], "chosen_logps": chosen.tolist(), "rejected_logps": rejected.tolist()}
        )
    return rows


def make_third(rows: Rows, start: Manifest, seed: int = 7) -> list[dict[str, Any]]:
    """Rows of `third`: a random response after every pair's prompt, with the start's log-probs."""
    random = np.random.default_rng(seed)
    model = LogProbModel(load_model(start, "float32", "cpu"))
    found = []
    for row in rows["tokens"]:
        ids = random.integers(2, VOCABULARY, int(random.integers(2, 12))).tolist()
        [[logps]] = response_logps(model, [Prompted(row["prompt_ids"], [ids])], budget(4096))
        found.append({"pair_id": row["pair_id"], "third_ids": ids, "third_logps": logps.tolist()})
    return found


def write_split(data: Path, split: str, rows: Rows, pairs_per_shard: int = 5) -> None:
    """Shards by position in `tokens`; the other artifacts' rows lie in the shard of their pair."""
    ids = [row["pair_id"] for row in rows["tokens"]]
    shards = max(1, -(-len(ids) // pairs_per_shard))
    for shard in range(shards):
        begin, end = shard * pairs_per_shard, min((shard + 1) * pairs_per_shard, len(ids))
        for name, schema in SCHEMAS.items():
            kept = [row for row in rows.get(name, []) if row["pair_id"] in ids[begin:end]]
            table = pa.Table.from_pylist(kept, schema=schema)
            facts = {"key": "test", "artifact": name, "split": split, "shards": shards, "rows": [begin, end]}
            if name not in rows:
                facts["skipped"] = "not needed"
            write_table(data / name / split / part_name(shard), table, facts)


def mark_third(data: Path, kind: str | None) -> None:
    """Footers of `third` name the kind that an objective takes, as if the stage had made it for this one."""
    for path in (data / "third").glob("*/*.parquet"):
        facts = read_facts(path)
        if kind and "skipped" not in facts and facts.get("kind") != kind:
            write_table(path, read_table(path, THIRD), {**facts, "kind": kind})


def make_job(
    root: Path, start: Manifest, params: Mapping[str, Any] | None = None, runtime: Mapping[str, Any] | None = None
) -> Job:
    """A job on `root/data`, whose third responses become those of its objective, working in `root/work`."""
    chosen = TrainParams(**{**PARAMS, **(params or {})})
    mark_third(root / "data", third_kind(objective_needs(chosen)))
    return Job(
        chosen,
        RuntimeParams(**{"device": "cpu", "threads": 1, "micro_batch_tokens": 48, **(runtime or {})}),
        PairArtifacts.below(root / "data"),
        start,
        root / "work",
        root / "curves",
        {"params": chosen.model_dump(), "inputs": {"tokens": "t"}, "code": "c"},
    )


def interrupt_once(monkeypatch: pytest.MonkeyPatch, step: int) -> list[int]:
    """The first time that training comes to a step, it is interrupted. Returns the steps that are begun from now on."""
    begun: list[int] = []
    whole_step = Learner.step

    def interrupted(self: Learner, index: int, pairs: Any) -> Any:
        begun.append(index)
        if index == step and begun.count(step) == 1:
            raise KeyboardInterrupt
        return whole_step(self, index, pairs)

    monkeypatch.setattr(Learner, "step", interrupted)
    return begun


def losses(history: Sequence[Mapping[str, float]]) -> list[float]:
    """The curve that runs are compared by: every training loss, then every validation loss."""
    return [line["train/loss"] for line in history] + [
        line["validation/loss"] for line in history if "validation/loss" in line
    ]


def loss_curves(job: Job) -> dict[str, str]:
    """Content of the training and the validation loss's file."""
    folder = job.curves / "plots" / "metrics"
    return {name: (folder / name / "loss.tsv").read_text() for name in ("train", "validation")}

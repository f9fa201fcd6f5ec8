"""Rows of the matrix of weight sources and objectives, through all stages, on sample pairs and a tiny random model."""

import json
import re
import shutil
from collections.abc import Collection, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoTokenizer

from pipeline.io.parquet import read_facts
from pipeline.models.generation.base import Answer, OnAnswers
from stages.common import main
from tests.e2e.conftest import Project

pytestmark = pytest.mark.e2e
FIRST = ("model", "prepare", "tokenize")
MAKING = ("needs", "render", "extract", "postprocess", "score", "realign", "reference", "third")
ROWS: dict[str, dict[str, Any]] = {
    "dpo": {"weights.source": "uniform", "train.objective": "dpo"},
    "d2po": {"weights.source": "decay", "weights.decay": {"gamma": 0.9}},
    "tis-dpo, ranks, ipo": {
        "weights.source": "contrast",
        "weights.contrast": {"transform": "rank_based"},
        "train.objective": "ipo",
    },
    "cdpo": {"weights.source": "critical"},
    "sepo": {
        "weights.source": "contrast",
        "weights.contrast": {"transform": "select", "select_share": 0.3},
        "score.contrast": {"models": "given"},
        "train.objective": "sepo",
    },
    "ti-dpo, code": {
        "weights.source": "gradient",
        "weights.gradient": {"span": "sequence", "scale": "mean1", "prior_width": 8.0, "prior_min_sigma": 1.0},
        "score.gradient": {"target": "after_last"},
        "train.objective": "tidpo_tdpo2",
    },
    "ti-dpo, neither saliency nor triplet": {
        "weights.source": "gradient",
        "weights.gradient": {"saliency_share": 0.0},
        "train.objective": "tidpo",
        "train.settings": {"gamma": 0.0},
    },
    "tis-dpo, penalty": {"weights.source": "contrast", "train.objective": "tisdpo"},
    "verbalized, partition": {"weights.source": "verbalized", "score.verbalized": {"answers": "partition"}},
    "kto": {"weights.source": "random", "train.objective": "kto"},
    "tpo": {"weights.source": "uniform", "train.objective": "tpo"},
}
"""Every source without a judge, every kind of need; tests/train/test_objectives.py trains all objectives."""
IDLE = {"ti-dpo, neither saliency nor triplet": ("scores", "third")}
"""Artifacts that a weight of 0 leaves without a part."""
SHOWN = ("d2po", "sepo")
"""Rows whose report is made too."""


@pytest.fixture(scope="module")
def tokenized(fresh_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose pairs, each with its chosen response as the gold one, are tokenized; with another tiny model."""
    project = fresh_project.copy(tmp_path_factory.mktemp("matrix") / "repo")
    _other_model(project)
    for name in ("train", "test"):
        file = project.root / "data" / "sample" / f"{name}.jsonl"
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[:24]]
        file.write_text("".join(json.dumps({**row, "gold": _text(row["chosen"])}) + "\n" for row in rows))
    project.set(
        {
            "model.positive": {"source": "folder", "name": "other", "revision": None, "chat_template": None},
            "third.max_new_tokens": 8,
            "train.epochs": 1,
            "train.max_steps": 2,
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        run(project, patch, *FIRST)
    return project


def _text(response: Any) -> str:
    return response if isinstance(response, str) else response[-1]["content"]


def _other_model(project: Project) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tiny = project.root / "tiny"
    model = AutoModelForCausalLM.from_pretrained(tiny)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(project.root / "other")
    AutoTokenizer.from_pretrained(tiny).save_pretrained(project.root / "other")


def run(project: Project, patch: pytest.MonkeyPatch, *stages: str) -> None:
    """Stages in this process, on the project's data."""
    patch.setenv("DVC_ROOT", str(project.root))
    for stage in stages:
        main(stage, import_module(f"stages.{stage}").work)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_goes_through_all_stages(
    row: str, tokenized: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tokenized.copy(tmp_path / "repo")
    project.set(ROWS[row])
    run(project, monkeypatch, *MAKING, "train", "evaluate")
    check_trained(project)
    for name in ("judge", "attention", "weights", *IDLE.get(row, ())):
        assert read_facts(project.root / "data" / name / "train" / "part-00000.parquet")["skipped"]
    if row in SHOWN:
        run(project, monkeypatch, "report")
        page = (project.root / "reports" / "index.md").read_text(encoding="utf-8")
        assert f"from source `{ROWS[row]['weights.source']}`" in page
        assert "No judge was asked" in page


def check_trained(project: Project) -> pl.DataFrame:
    """Two steps, an evaluation, and weights of what was trained on, which are returned."""
    metrics = json.loads((project.root / "reports" / "metrics" / "train.json").read_text())
    assert metrics["steps"] == 2
    assert np.isfinite(metrics["last_tenth"]["loss"])
    evaluated = json.loads((project.root / "reports" / "metrics" / "evaluate.json").read_text())
    assert evaluated["pairs"] > 0
    aligned = pl.scan_parquet(project.root / "data" / "aligned" / "train").collect()
    assert len(aligned) > 0
    return aligned


def test_rollout_goes_through_all_stages(tokenized: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tokenized.copy(tmp_path / "repo")
    project.set({"extract.source": "rollout"})
    run(project, monkeypatch, *MAKING, "train", "evaluate")
    check_trained(project)
    rows = pl.scan_parquet(project.root / "data" / "attention" / "train").collect()
    assert set(rows["source"]) == {"rollout"}


class ScriptedJudge:
    """A Generator that splits each response into words and scores them 1, 2, 3, 4, 5, 1, …; every fourth pair's
    rejected response has no answer that can be read."""

    context = 4096

    def __init__(self, project: Project, stops: Collection[int]) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(project.root / "tiny")
        self._stop = min(stops)
        pairs = pl.scan_parquet(project.root / "data" / "pairs" / "*.parquet").collect().to_dicts()
        self._texts = {
            f"pair {pair['pair_id']}, {side} response": pair[side] for pair in pairs for side in ("chosen", "rejected")
        }
        self.unread = {f"pair {pair['pair_id']}, rejected response" for pair in pairs[::4]}

    def answers(
        self, prompts: Sequence[Sequence[int]], names: Sequence[str], on_answers: OnAnswers | None = None
    ) -> list[Answer]:
        return [self._answer(name) for name in names]

    def _answer(self, name: str) -> Answer:
        words = re.findall(r"\s*\S+\s*", self._texts[name])
        parts = ", ".join(f"{{{json.dumps(word)}, {1 + place % 5}}}" for place, word in enumerate(words))
        said = "I cannot." if name in self.unread else f"[{parts}]"
        return Answer(self._tokenizer(said, add_special_tokens=False)["input_ids"], self._stop)


def test_scores_that_a_judge_says_go_through_all_stages(
    tokenized: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tokenized.copy(tmp_path / "repo")
    project.set({"weights.source": "verbalized"})
    judges = []

    def open_scripted(manifest: Any, stops: Collection[int], *rest: Any) -> ScriptedJudge:
        judges.append(ScriptedJudge(project, stops))
        return judges[-1]

    monkeypatch.setattr("pipeline.weights.sources.registry.open_generator", open_scripted)
    run(project, monkeypatch, *MAKING, "train", "evaluate")
    aligned = check_trained(project)
    unread = {name.split()[1].rstrip(",") for name in judges[0].unread}
    assert not unread & set(aligned["pair_id"])
    refused = pl.read_parquet(project.root / "data" / "refused" / "score.parquet")
    assert set(refused["pair_id"]) == unread
    assert set(refused["reason"]) == {"no_list"}
    found = set()
    for weights in aligned["chosen_weights"]:
        # Scores over their sum: the first word's, 1, tells what all of them were.
        assert weights.sum() == pytest.approx(1.0, abs=1e-5)
        scores = weights.to_numpy() / weights[0]
        np.testing.assert_allclose(scores, np.round(scores), atol=1e-4)
        found |= set(np.round(scores).astype(int))
    assert found <= {0, 1, 2, 3, 4, 5}
    assert {1, 2, 3, 4, 5} <= found


def test_scores_of_another_source_are_not_weighed(
    tokenized: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tokenized.copy(tmp_path / "repo")
    project.set(ROWS["dpo"])
    run(project, monkeypatch, "needs", "render", "extract", "postprocess", "score")
    project.set(ROWS["cdpo"] | {"train.objective": "twdpo"})
    with pytest.raises(
        SystemExit, match=r"data/scores: holds scores of no source, and weights\.source is critical; run `dvc repro`"
    ):
        run(project, monkeypatch, "realign")
    project.set({"weights.source": "judge"})
    with pytest.raises(
        SystemExit, match=r"data/weights: was left empty, and weights\.source is judge; run `dvc repro`"
    ):
        run(project, monkeypatch, "realign")


def test_a_judge_that_writes_no_list_costs_no_work(
    tokenized: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random model's answers are no lists: every pair is refused with a reason, and no stage goes on from there."""
    project = tokenized.copy(tmp_path / "repo")
    project.set({"weights.source": "verbalized", "score.verbalized": {"max_new_tokens": 8, "min_matched": 0.9}})
    run(project, monkeypatch, *MAKING[: MAKING.index("score")])
    with pytest.raises(SystemExit, match=r"no train pair is left; data/refused/score\.parquet says why"):
        run(project, monkeypatch, "score")
    metrics = json.loads((project.root / "reports" / "metrics" / "score.json").read_text())
    assert metrics["train"]["pairs"] == 0
    assert sum(metrics["refused"].values()) > 0
    refused = pl.read_parquet(project.root / "data" / "refused" / "score.parquet")
    pairs = pl.read_parquet(project.root / "data" / "pairs" / "train.parquet").with_row_index("row")
    joined = refused.filter(pl.col("split") == "train").join(pairs.with_columns(pl.col("row").cast(pl.Int64)), on="row")
    assert len(joined) > 0
    assert joined["pair_id"].to_list() == joined["pair_id_right"].to_list()


def test_flipped_labels_leave_attention_and_reference_alone(
    tokenized: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tokenized.copy(tmp_path / "repo")
    project.set({"realign.flip_labels": 0.4})
    run(project, monkeypatch, *MAKING)
    before = project.files("data/attention", "data/reference")
    aligned = {split: pl.scan_parquet(project.root / "data/aligned" / split).collect() for split in ("train", "test")}
    assert 0 < aligned["train"]["flipped"].sum() < len(aligned["train"])
    assert aligned["test"]["flipped"].sum() == 0
    project.set({"realign.flip_labels": 0.0})
    run(project, monkeypatch, "realign")
    assert project.files("data/attention", "data/reference") == before
    straight = pl.scan_parquet(project.root / "data" / "aligned" / "train").collect()
    assert straight["chosen_weights"].to_list() == aligned["train"]["chosen_weights"].to_list()


def test_an_objective_without_its_third_response_is_refused(
    fresh_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = fresh_project.copy(tmp_path / "repo")
    project.set({"weights.source": "uniform", "train.objective": "tpo"})
    with pytest.raises(SystemExit, match=r"train.objective: tpo takes a third.*prepare.train: train.jsonl"):
        run(project, monkeypatch, "model", "prepare", "needs")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"extract.layers": [0], "postprocess.layer": -1},
            r"postprocess.layer: -1 of the judge's 2 layers is not cached",
        ),
        ({"extract.layers": [0, 2], "postprocess.layer": 0}, r"`extract.layers` asks for \[2\], but the judge has 2"),
        ({"extract.heads": [0, 4]}, r"`extract.heads` asks for \[4\], but the judge's layers have 4 heads"),
    ],
)
def test_rows_that_extract_will_not_cache_are_refused_before_it(
    change: dict[str, Any], message: str, fresh_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = fresh_project.copy(tmp_path / "repo")
    project.set(change)
    with pytest.raises(SystemExit, match=message):
        run(project, monkeypatch, "model", "prepare", "needs")


def test_an_oracle_of_another_vocabulary_is_refused(
    tokenized: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tokenized.copy(tmp_path / "repo")
    tokenizer = project.root / "other" / "tokenizer.json"
    content = json.loads(tokenizer.read_text(encoding="utf-8"))
    content["added_tokens"][0]["content"] += "!"
    tokenizer.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"model.positive: other has another tokenizer than model.start \(tiny\)"):
        run(project, monkeypatch, "model")


def test_two_folders_of_the_same_weights_are_no_contrast(
    tokenized: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tokenized.copy(tmp_path / "repo")
    shutil.copytree(project.root / "other", project.root / "again")
    again = {"source": "folder", "name": "again", "revision": None, "chat_template": None}
    project.set({"weights.source": "critical", "model.negative": again})
    with pytest.raises(SystemExit, match=r"critical contrasts model.positive .* with model.negative .* are the same"):
        run(project, monkeypatch, "model", "needs")

"""Rows to splits: duplicates, prompts that test has, validation, limits, figures, and bytes that do not change."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.prepare import PrepareParams
from pipeline.config.runtime import RuntimeParams
from pipeline.data.arrow_rows import SourceRow
from pipeline.data.metrics import describe, prepare_metrics
from pipeline.data.pairs import Pair, open_pairs
from pipeline.data.prepare import Prepared, prepare, read_source
from pipeline.data.sources import Source, SourceSplit, open_sources
from pipeline.errors import DataError
from pipeline.io.parquet import read_table
from pipeline.io.refusal import Refusal
from pipeline.schemas.refused import REFUSED
from stages.common import Stage
from stages.prepare import work


def row(prompt: str, chosen: str = "yes", rejected: str = "no", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def source(split: SourceSplit, rows: list[dict[str, Any] | None]) -> Source:
    def read() -> Iterator[SourceRow]:
        for number, columns in enumerate(rows):
            yield SourceRow(number, columns, "" if columns is not None else "bad_json", "")

    return Source(split, f"folder/{split}.jsonl", f"prepare.{split}", read)


def run(train: list[Any], test: list[Any] | None = None, share: float = 0.0, limit: int | None = None) -> Prepared:
    sources: dict[SourceSplit, Source] = {"train": source("train", train)}
    if test is not None:
        sources["test"] = source("test", test)
    return prepare(sources, share, limit)


def test_every_row_ends_in_a_split_or_among_the_refused() -> None:
    train = [row("a"), None, row("b", "", "no"), row("a"), row("c", "no", "no"), row("t"), row("d"), {"chosen": "x"}]
    test = [row("t"), row("t", "yes!"), row("u", "same", "same"), row("d", "", "no")]
    prepared = run(train, test)
    assert [pair.source for pair in prepared.pairs["train"]] == ["folder/train.jsonl#0", "folder/train.jsonl#6"]
    assert [pair.source for pair in prepared.pairs["test"]] == ["folder/test.jsonl#0", "folder/test.jsonl#1"]
    duplicate, shared = prepared.pairs["train"][0].pair_id, prepared.pairs["test"][0].pair_id
    assert prepared.refused == [
        Refusal("train", 1, "", "bad_json", ""),
        Refusal("train", 2, "", "empty_response", "chosen: 0 characters, nothing to read"),
        Refusal("train", 3, duplicate, "duplicate", "of row 0"),
        Refusal("train", 4, "", "identical_responses", "2 characters"),
        Refusal("train", 5, shared, "prompt_in_test", "1 turns before the response"),
        Refusal("train", 7, "", "missing_field", "rejected"),
        Refusal("test", 2, "", "identical_responses", "4 characters"),
        Refusal("test", 3, "", "empty_response", "chosen: 0 characters, nothing to read"),
    ]
    figures = prepare_metrics(prepared)
    assert figures["rows"] == {"train": 8, "test": 4}
    assert figures["pairs"] == {"train": 2, "validation": 0, "test": 2}
    assert sum(figures["rows"].values()) == sum(figures["pairs"].values()) + figures["refused_total"]
    assert figures["prompts_removed_from_train"] == 1
    assert figures["refused"]["test"] == {"empty_response": 1, "identical_responses": 1}


def test_prompts_are_the_same_only_if_all_their_turns_are() -> None:
    """`t` as the only turn is in test; `t` after a system turn is another prompt."""
    system = [{"role": "system", "content": "s"}, {"role": "user", "content": "t"}]
    prepared = run([row("t", "1"), row("t", "2"), row("t ", "3"), {**row("", "4"), "prompt": system}], [row("t")])
    assert [pair.chosen for pair in prepared.pairs["train"]] == ["3", "4"]
    assert prepare_metrics(prepared)["prompts_removed_from_train"] == 1
    assert len(prepared.refused) == 2


def test_swapped_responses_are_no_duplicate() -> None:
    assert len(run([row("a", "1", "2"), row("a", "2", "1")]).pairs["train"]) == 2


def test_equal_prompts_are_on_one_side_of_the_validation_split() -> None:
    rows = [row(f"prompt {number % 50}", f"answer {number}") for number in range(200)]
    prepared = run(rows, share=0.3)
    train, held = ({pair.prompt_key for pair in prepared.pairs[split]} for split in ("train", "validation"))
    assert train
    assert held
    assert not train & held
    again = run(rows[:100], share=0.3)
    assert {pair.prompt_key for pair in again.pairs["validation"]} <= held


def test_limit_counts_rows_before_checks() -> None:
    prepared = run([None, row("a"), row("b"), row("c")], [row("t", "", "x"), row("u"), row("v")], limit=2)
    assert prepare_metrics(prepared)["rows"] == {"train": 2, "test": 2}
    assert prepare_metrics(prepared)["pairs"] == {"train": 1, "validation": 0, "test": 1}


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([], r"prepare\.train: folder/train\.jsonl has no usable pair: it has no row"),
        (
            [row("a", "", "x"), row("a", "x", "x"), row("b", "y", "y")],
            r"of 3 rows, 1 empty_response, 2 identical_responses\. The first, row 0: empty_response \(chosen: 0",
        ),
        ([{"chosen": "x", "rejected": "y"}], r"missing_field \(prompt\)"),
        ([{"text": "a"}, {"id": "b"}], r"no column chosen and rejected; found: text, id"),
    ],
)
def test_no_usable_pair_is_fatal(train: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(train)


def test_a_test_source_without_a_usable_pair_is_fatal() -> None:
    with pytest.raises(DataError, match=r"prepare\.test: folder/test\.jsonl has no usable pair"):
        run([row("a")], [row("b", "", "x")])


def test_nothing_left_after_validation_is_fatal() -> None:
    with pytest.raises(DataError, match=r"prepare\.validation_share: 0\.999999 holds out all 1 usable pairs"):
        run([row("a")], share=0.999999)


def test_all_prompts_in_test_is_fatal() -> None:
    with pytest.raises(DataError, match="1 prompt_in_test"):
        run([row("a")], [row("a")])


def test_dropped_scores_are_counted() -> None:
    prepared = run([row("a", score_chosen="high", score_rejected=1.0), row("b", score_chosen=float("nan"))])
    assert prepare_metrics(prepared)["scores_dropped"] == 2


def test_figures_of_a_split() -> None:
    turns = [{"role": "system", "content": "12345"}, *[{"role": "user", "content": "ab"}] * 2]
    pairs = [
        Pair(turns, "\U0001f44d\U0001f3fd", "bb", 1.0, 2.0, "best", ""),
        Pair([{"role": "user", "content": "abc"}], "a" * 4, "b", 1.0, None, None, ""),
    ]
    assert describe(pairs) == {
        "mean_prompt_characters": 6.0,
        "mean_chosen_characters": 3.0,
        "mean_rejected_characters": 1.5,
        "multi_turn_share": 0.5,
        "system_turn_share": 0.5,
        "scored_share": 0.5,
        "gold_share": 0.5,
    }


def test_read_source_alone() -> None:
    found = read_source(source("train", [row("a"), row("b")]), in_test={run([row("b")]).pairs["train"][0].prompt_key})
    assert ([pair.prompt[0]["content"] for pair in found.pairs], found.rows) == (["a"], 2)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder in which the stage can run."""
    lines = {"train": [row(f"p{number}") for number in range(30)] + [row("p0")], "test": [row("q"), row("r")]}
    (tmp_path / "mine").mkdir()
    for name, rows in lines.items():
        (tmp_path / "mine" / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in rows))
    (tmp_path / "params.yaml").write_text("prepare:\n  folder: mine\n  validation_share: 0.2\n  pairs_per_shard: 8\n")
    return tmp_path


def files(root: Path) -> dict[str, bytes]:
    folders = ("data", "reports")
    return {str(file.relative_to(root)): file.read_bytes() for name in folders for file in (root / name).rglob("*.*")}


def test_the_stage_writes_pairs_refusals_and_metrics(project: Path) -> None:
    work(Stage("prepare", project, RuntimeParams()))
    assert set(files(project)) == {
        *(f"data/pairs/{split}.parquet" for split in ("train", "validation", "test")),
        "data/refused/prepare.parquet",
        "reports/metrics/prepare.json",
    }
    train = open_pairs(project / "data/pairs/train.parquet")
    assert train.pairs_per_shard == 8
    assert {"artifact": "pairs", "split": "train", "rows": [0, train.table.num_rows]}.items() <= train.facts.items()
    assert len(train.facts["key"]) == 20
    refused = read_table(project / "data/refused/prepare.parquet", REFUSED).to_pylist()
    assert [(item["row"], item["reason"], item["detail"]) for item in refused] == [(30, "duplicate", "of row 0")]
    metrics = json.loads((project / "reports/metrics/prepare.json").read_text())
    assert metrics["pairs"]["train"] == train.table.num_rows
    assert metrics["refused"] == {"train": {"duplicate": 1}, "test": {}}


def test_no_test_source_leaves_an_empty_test_file(project: Path) -> None:
    (project / "params.yaml").write_text("prepare:\n  folder: mine\n  test: null\n")
    work(Stage("prepare", project, RuntimeParams()))
    assert open_pairs(project / "data/pairs/test.parquet").shards == [(0, 0)]


def test_same_pairs_same_bytes(project: Path) -> None:
    """Also under params that find the same pairs: what follows `prepare` must not start anew for them."""
    work(Stage("prepare", project, RuntimeParams()))
    first = files(project)
    work(Stage("prepare", project, RuntimeParams()))
    assert files(project) == first
    params = project / "params.yaml"
    params.write_text(params.read_text() + "  limit: 1000\n")
    work(Stage("prepare", project, RuntimeParams()))
    assert files(project) == first


def test_sample_has_no_refused_row(root: Path) -> None:
    params = PrepareParams()
    prepared = prepare(open_sources(params, root), params.validation_share)
    assert prepared.refused == []
    assert len(prepared.pairs["validation"]) > 0

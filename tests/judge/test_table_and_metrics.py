"""Rows of `data/judge/`, and the metrics taken from them."""

from typing import Any

import pytest

from pipeline.config.render import RenderParams
from pipeline.judge.metrics import COLUMNS, render_metrics
from pipeline.judge.prompt import PromptTemplate
from pipeline.judge.render import JudgePair, Renderer
from pipeline.judge.table import judge_table
from pipeline.models.chat import Chat
from pipeline.schemas.judge import JUDGE

WORDS = "The river runs to the sea, and rain fills it again. "


@pytest.fixture(scope="module")
def judged(default_tokenizer: Any, prompt: PromptTemplate) -> list[tuple[str, JudgePair]]:
    renderer = Renderer(Chat(default_tokenizer), prompt, RenderParams(max_tokens=900, answer_tokens=200))
    pairs = [("a", "Why?", "Yes 👍🏽", "No."), ("b", WORDS * 40, WORDS * 30, "No."), ("c", WORDS * 90, "Maybe", "Yes")]
    return [
        (pair_id, renderer.render({"prompt": [{"role": "user", "content": question}], "chosen": a, "rejected": b}))
        for pair_id, question, a, b in pairs
    ]


def test_two_rows_per_pair_with_all_that_was_rendered(judged: list[tuple[str, JudgePair]]) -> None:
    table = judge_table(judged)
    assert table.schema.equals(JUDGE)
    rows = table.to_pylist()
    assert [(row["pair_id"], row["round"]) for row in rows] == [(i, r) for i in "abc" for r in (1, 2)]
    for row, (of, cut) in zip(rows, [(of, pair.cut) for _, pair in judged for of in pair.rounds], strict=True):
        assert row["input_ids"] == of.input_ids
        for name in ("chosen", "rejected"):
            assert (row[f"{name}_start"], row[f"{name}_end"]) == of.spans[name]
            assert [(span["start"], span["end"]) for span in row[f"{name}_offsets"]] == [
                tuple(span) for span in of.offsets[name].tolist()
            ]
        assert {name: row[f"{name}_cut"] for name in ("prompt", "chosen", "rejected")} == cut
    assert rows[0]["chosen_start"] < rows[0]["rejected_start"]
    assert rows[1]["rejected_start"] < rows[1]["chosen_start"]


def test_metrics_over_shards_are_those_of_all_rows(judged: list[tuple[str, JudgePair]]) -> None:
    rows = judge_table(judged).to_pylist()
    metrics = render_metrics(judge_table(part).select(COLUMNS) for part in (judged[:1], [], judged[1:]))
    lengths = [len(row["input_ids"]) for row in rows]
    cuts = {name: [row[f"{name}_cut"] for row in rows[::2]] for name in ("prompt", "chosen", "rejected")}
    chosen = [row["chosen_end"] - row["chosen_start"] for row in rows[::2]]
    assert metrics["pairs"] == 3
    assert metrics["judge_tokens"] == sum(lengths)
    assert metrics["judge_tokens_mean"] == pytest.approx(sum(lengths) / 6)
    assert metrics["judge_tokens_max"] == max(lengths)
    assert metrics["chosen_tokens_mean"] == pytest.approx(sum(chosen) / 3)
    assert metrics["chosen_tokens_max"] == max(chosen)
    assert metrics["cut_share"] == metrics["prompt_cut_share"] == pytest.approx(2 / 3)
    assert metrics["chosen_cut_share"] == pytest.approx(1 / 3)
    assert metrics["rejected_cut_share"] == 0
    assert {f"{name}_cut_tokens": sum(of) for name, of in cuts.items()}.items() <= metrics.items()
    assert cuts["chosen"][1] > 0


def test_a_split_without_pairs_has_no_rows_and_no_means() -> None:
    table = judge_table([])
    assert table.schema.equals(JUDGE)
    assert len(table) == 0
    assert render_metrics([table.select(COLUMNS)]) == {"pairs": 0, "judge_tokens": 0}

"""Judgements to rows: which scores belong to which response in which round."""

from typing import Any

import numpy as np
import pytest

from pipeline.attention.backend import Judgement, VerdictProbs
from pipeline.attention.tables import attention_table, judge_prompts, verdict_table
from pipeline.errors import ShardError
from pipeline.schemas.attention import MEAN_OVER_HEADS


def judge_row(pair_id: str, number: int, chosen: tuple[int, int], rejected: tuple[int, int]) -> dict[str, Any]:
    return {
        "pair_id": pair_id,
        "round": number,
        "input_ids": list(range(100 * number, 100 * number + 20)),
        "chosen_start": chosen[0],
        "chosen_end": chosen[1],
        "rejected_start": rejected[0],
        "rejected_end": rejected[1],
        "chosen_offsets": [{"start": k, "end": k + 1} for k in range(chosen[1] - chosen[0])],
        "rejected_offsets": [{"start": k, "end": k + 1} for k in range(rejected[1] - rejected[0])],
    }


ROWS = [judge_row("p", 1, (3, 6), (10, 12)), judge_row("p", 2, (12, 15), (4, 6))]


def judgement(first: float, prob_a: float) -> Judgement:
    rows = {
        layer: [np.float32([[first, first + 1, first + 2]]), np.float32([[first + 10, first + 11]])] for layer in (0, 5)
    }
    return Judgement(rows=rows, verdict=VerdictProbs(prob_a=prob_a, prob_b=0.3, top_token=7))


def test_prompts_carry_the_spans_of_both_responses() -> None:
    prompts = judge_prompts(ROWS)
    assert [prompt.spans for prompt in prompts] == [((3, 6), (10, 12)), ((12, 15), (4, 6))]
    assert prompts[1].name == "pair p, round 2"


def test_one_row_per_response_and_layer_with_the_tokens_of_round_1() -> None:
    table = attention_table(ROWS, [judgement(1.0, 0.6), judgement(2.0, 0.3)], [MEAN_OVER_HEADS]).to_pylist()
    assert [(row["response"], row["layer"]) for row in table] == [
        ("chosen", 0),
        ("chosen", 5),
        ("rejected", 0),
        ("rejected", 5),
    ]
    assert table[0]["token_ids"] == [103, 104, 105]
    assert table[2]["token_ids"] == [110, 111]
    assert (table[1]["round_1"], table[1]["round_2"]) == ([1, 2, 3], [2, 3, 4])
    assert (table[3]["round_1"], table[3]["round_2"]) == ([11, 12], [12, 13])


def test_one_row_per_head_with_its_own_scores() -> None:
    rounds = [
        Judgement({3: [np.float32([[k, k + 1, k + 2], [5, 6, 7]]), np.float32([[k + 4, k], [8, 9]])]}) for k in (1, 2)
    ]
    table = attention_table(ROWS, rounds, [0, 4], "rollout").to_pylist()
    assert [(row["response"], row["layer"], row["head"]) for row in table] == [
        ("chosen", 3, 0),
        ("chosen", 3, 4),
        ("rejected", 3, 0),
        ("rejected", 3, 4),
    ]
    assert {row["source"] for row in table} == {"rollout"}
    assert [(row["round_1"], row["round_2"]) for row in table] == [
        ([1, 2, 3], [2, 3, 4]),
        ([5, 6, 7], [5, 6, 7]),
        ([5, 1], [6, 2]),
        ([8, 9], [8, 9]),
    ]


def test_no_verdict_no_row() -> None:
    assert len(verdict_table(ROWS, [Judgement({}), Judgement({})])) == 0


def test_verdicts_name_the_more_probable_letter_and_a_on_a_tie() -> None:
    table = verdict_table(ROWS, [judgement(1.0, 0.2), judgement(2.0, 0.3)])
    assert table["verdict"].to_pylist() == ["B", "A"]


def test_rounds_that_do_not_follow_each_other_are_named() -> None:
    with pytest.raises(ShardError, match="pair p: its two rounds"):
        attention_table([ROWS[0], ROWS[0]], [judgement(1.0, 0.6)] * 2, [MEAN_OVER_HEADS])

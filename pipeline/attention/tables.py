"""Judgements of one shard as the rows of `data/attention/` and `data/verdicts/`."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.attention.backend import Judgement, JudgePrompt
from pipeline.attention.verdict import verdict
from pipeline.errors import ShardError
from pipeline.schemas.attention import ATTENTION, VERDICTS
from pipeline.schemas.base import RESPONSES

Row = dict[str, Any]


def judge_prompts(rows: Sequence[Row]) -> list[JudgePrompt]:
    """Rows of `data/judge/` as prompts; the spans are those of chosen and rejected, in this order."""
    return [
        JudgePrompt(
            input_ids=row["input_ids"],
            spans=tuple((row[f"{name}_start"], row[f"{name}_end"]) for name in RESPONSES),
            name=f"pair {row['pair_id']}, round {row['round']}",
        )
        for row in rows
    ]


def attention_table(
    rows: Sequence[Row], judgements: Sequence[Judgement], heads: Sequence[int], source: str = "attention"
) -> pa.Table:
    """One row per pair, response, layer and head, from both rounds of every pair.

    `rows` come in pairs: round 1, round 2. `heads` and `source` say what the judgements hold.
    """
    made: list[Row] = []
    for first, second in zip(range(0, len(rows), 2), range(1, len(rows), 2), strict=True):
        row = rows[first]
        if (row["round"], rows[second]["round"]) != (1, 2) or row["pair_id"] != rows[second]["pair_id"]:
            raise ShardError(f"pair {row['pair_id']}: its two rounds do not follow each other; run `render` again")
        for index, name in enumerate(RESPONSES):
            start, end = row[f"{name}_start"], row[f"{name}_end"]
            for layer, scores in judgements[first].rows.items():
                for head, round_1, round_2 in zip(
                    heads, scores[index], judgements[second].rows[layer][index], strict=True
                ):
                    made.append(
                        {
                            "pair_id": row["pair_id"],
                            "response": name,
                            "source": source,
                            "layer": layer,
                            "head": head,
                            "token_ids": row["input_ids"][start:end],
                            "offsets": row[f"{name}_offsets"],
                            "round_1": round_1,
                            "round_2": round_2,
                        }
                    )
    return pa.Table.from_pylist(made, schema=ATTENTION)


def verdict_table(rows: Sequence[Row], judgements: Sequence[Judgement]) -> pa.Table:
    """One row per pair and round; none where no verdict was read."""
    return pa.Table.from_pylist(
        [
            {
                "pair_id": row["pair_id"],
                "round": row["round"],
                "prob_a": read.prob_a,
                "prob_b": read.prob_b,
                "verdict": verdict(read.prob_a, read.prob_b),
                "top_token": read.top_token,
            }
            for row, read in zip(rows, (judgement.verdict for judgement in judgements), strict=True)
            if read is not None
        ],
        schema=VERDICTS,
    )

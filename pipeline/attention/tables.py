"""Judgements of one shard as the rows of `data/attention/` and `data/verdicts/`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.attention.backend import Judgement, JudgePrompt
from pipeline.attention.verdict import verdict
from pipeline.errors import ShardError
from pipeline.io.lists import list_array
from pipeline.schemas.attention import ATTENTION, VERDICTS
from pipeline.schemas.base import FLOATS, RESPONSES

Row = dict[str, Any]
Scores = npt.NDArray[np.float32]


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
    responses: list[Row] = []
    numbers: list[tuple[int, int, int]] = []  # response, layer, head
    scores: tuple[list[Scores], list[Scores]] = ([], [])
    for first, second in zip(range(0, len(rows), 2), range(1, len(rows), 2), strict=True):
        row = rows[first]
        if (row["round"], rows[second]["round"]) != (1, 2) or row["pair_id"] != rows[second]["pair_id"]:
            raise ShardError(f"pair {row['pair_id']}: its two rounds do not follow each other; run `render` again")
        for index, name in enumerate(RESPONSES):
            start, end = row[f"{name}_start"], row[f"{name}_end"]
            for layer in judgements[first].rows:
                numbers += [(len(responses), layer, head) for head in heads]
                for of_round, judged in zip(scores, (judgements[first], judgements[second]), strict=True):
                    of_round.extend(judged.rows[layer][index])
            responses.append(
                {
                    "pair_id": row["pair_id"],
                    "response": name,
                    "token_ids": row["input_ids"][start:end],
                    "offsets": row[f"{name}_offsets"],
                }
            )
    # Ids and offsets are made once a response, not once a head: with all heads those are a thousand rows of one pair.
    kept = pa.schema([ATTENTION.field(name) for name in ("pair_id", "response", "token_ids", "offsets")])
    which, layers, of_heads = np.array(numbers, dtype=np.int64).reshape(-1, 3).T
    table = pa.Table.from_pylist(responses, schema=kept).take(which)
    columns = {
        "source": pa.array([source] * len(which), pa.string()),
        "layer": pa.array(layers, pa.int16()),
        "head": pa.array(of_heads, pa.int16()),
        "round_1": list_array(scores[0], FLOATS),
        "round_2": list_array(scores[1], FLOATS),
    }
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table.select(ATTENTION.names).cast(ATTENTION)


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

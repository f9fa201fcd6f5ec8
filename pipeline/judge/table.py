"""Rendered pairs as rows of `data/judge/`."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline.io.lists import list_array
from pipeline.judge.render import JudgePair, Round
from pipeline.judge.spans import Offsets
from pipeline.schemas.base import OFFSETS, RESPONSES, SPAN, TOKEN_IDS
from pipeline.schemas.judge import JUDGE


def judge_table(pairs: Sequence[tuple[str, JudgePair]]) -> pa.Table:
    """Pair ids and their prompts: two rows each, round 1 first."""
    rows = [
        (pair_id, number, of, pair.cut) for pair_id, pair in pairs for number, of in enumerate(pair.rounds, start=1)
    ]
    rounds = [of for _, _, of, _ in rows]
    columns: dict[str, pa.Array] = {
        "pair_id": pa.array([pair_id for pair_id, _, _, _ in rows], pa.string()),
        "round": pa.array([number for _, number, _, _ in rows], pa.int8()),
        "input_ids": list_array([np.array(of.input_ids, dtype=np.int32) for of in rounds], TOKEN_IDS),
    }
    for name in RESPONSES:
        columns |= {
            f"{name}_start": pa.array([of.spans[name][0] for of in rounds], pa.int32()),
            f"{name}_end": pa.array([of.spans[name][1] for of in rounds], pa.int32()),
            f"{name}_offsets": _offsets(rounds, name),
        }
    for name in (*RESPONSES, "prompt"):
        columns[f"{name}_cut"] = pa.array([cut[name] for _, _, _, cut in rows], pa.int32())
    return pa.table([columns[name] for name in JUDGE.names], schema=JUDGE)


def _offsets(rounds: Sequence[Round], name: str) -> pa.ListArray:
    lists: list[Offsets] = [of.offsets[name] for of in rounds]
    ends = np.zeros(len(lists) + 1, dtype=np.int32)
    np.cumsum([len(offsets) for offsets in lists], out=ends[1:])
    flat = np.concatenate(lists) if lists else np.zeros((0, 2), dtype=np.int32)
    spans = pa.StructArray.from_arrays([pa.array(flat[:, 0]), pa.array(flat[:, 1])], fields=list(SPAN))
    return pa.ListArray.from_arrays(pa.array(ends), spans).cast(OFFSETS)

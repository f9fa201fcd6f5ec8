"""A shard's pairs: their order and refusals."""

import numpy as np
import pytest

from pipeline.config.realign import RealignParams
from pipeline.realign.aligned import JudgeTokens, NotAligned, TrainTokens
from pipeline.realign.rows import PairTokens, align_rows

CLEAN = RealignParams(eos_weight="mean", renormalize=True, length="trained")


def response(judge_ids, train_ids):
    """Uniform judge weights; no end of turn."""
    offsets = [np.array([(k, k + 1) for k in range(len(ids))]) for ids in (judge_ids, train_ids)]
    weights = np.full(len(judge_ids), 1 / len(judge_ids), dtype=np.float32)
    judge = JudgeTokens(token_ids=np.array(judge_ids), offsets=offsets[0], weights=weights)
    return judge, TrainTokens(token_ids=np.array(train_ids), offsets=offsets[1], eos=False)


WHOLE = response([1, 2, 3, 4], [1, 2, 3, 4])
HALF = response([1, 2, 3, 4], [1, 2, 8, 9])
NONE = response([1, 2], [8, 9])


def align(pairs, params=CLEAN):
    rows = [PairTokens(pair_id=f"p{k}", chosen=chosen, rejected=rejected) for k, (chosen, rejected) in enumerate(pairs)]
    return list(align_rows(rows, params, by_characters=False))


def test_rows_keep_their_order_and_their_sides():
    rows = align([(WHOLE, HALF), (HALF, WHOLE)])
    assert [row.pair_id for row in rows] == ["p0", "p1"]
    assert rows[0].chosen.weights.tolist() == rows[1].rejected.weights.tolist() == [0.25] * 4
    assert rows[0].rejected.weights.tolist() == [0.5, 0.5, 0, 0]


@pytest.mark.parametrize(("pair", "side"), [((NONE, WHOLE), "chosen"), ((WHOLE, NONE), "rejected")])
def test_one_response_refuses_the_pair_and_no_other(pair, side):
    rows = align([pair, (WHOLE, WHOLE)])
    assert isinstance(rows[0], NotAligned)
    assert rows[0].detail.startswith(side)
    assert rows[1].pair_id == "p1"

"""The packed row: what stands where, and what predicts what."""

import numpy as np
import pytest
import torch

from pipeline.models.packed.layout import Prompted, Segment, pack, row_length

ITEMS = [Prompted([1, 2, 3], [[10, 11], [20, 21, 22]]), Prompted([4], [[30]])]


def test_a_shared_prompt_stands_once() -> None:
    row = pack(ITEMS, share=True)
    assert row.input_ids.tolist() == [[1, 2, 3, 10, 11, 20, 21, 22, 4, 30]]
    assert row.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5, 0, 1]]
    assert row.segments == (Segment(0, 5, (0, 0)), Segment(5, 8, (0, 3)), Segment(8, 10, (8, 8)))
    assert row.targets.tolist() == [10, 11, 20, 21, 22, 30]
    assert row.predictors.tolist() == [2, 3, 2, 5, 6, 8]
    assert row.longest == 6


def test_otherwise_it_stands_before_every_response() -> None:
    row = pack(ITEMS, share=False)
    assert row.input_ids.tolist() == [[1, 2, 3, 10, 11, 1, 2, 3, 20, 21, 22, 4, 30]]
    assert row.position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 0, 1]]
    assert row.segments == (Segment(0, 5, (0, 0)), Segment(5, 11, (5, 5)), Segment(11, 13, (11, 11)))
    assert row.predictors.tolist() == [2, 3, 7, 8, 9, 11]


@pytest.mark.parametrize("share", [False, True])
def test_row_length_and_arrays_of_any_integer_type(share: bool) -> None:
    arrays = [Prompted(np.array(p, np.int32), [np.array(r, np.int32) for r in rs]) for p, rs in ITEMS]
    row = pack(arrays, share)
    assert row.input_ids.dtype == row.targets.dtype == row.predictors.dtype == torch.int64
    assert row.input_ids.shape[1] == sum(row_length(len(p), [len(r) for r in rs], share) for p, rs in ITEMS)
    assert torch.equal(row.input_ids, pack(ITEMS, share).input_ids)


@pytest.mark.parametrize("item", [Prompted([], [[1]]), Prompted([1], [[2], []])])
def test_nothing_is_empty(item: Prompted) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        pack([item], share=True)

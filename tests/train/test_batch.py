"""Micro-batches: one packed row, and matrices of what the loss takes from disk."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.objectives.response import log_ratios
from pipeline.train.batch import collate, filler, split_pairs
from pipeline.train.pairs import TrainedPair, TrainedResponse

CPU = torch.device("cpu")


def pair(name: str, prompt: int, chosen: int, rejected: int) -> TrainedPair:
    def response(length: int, value: float) -> TrainedResponse:
        ids = np.arange(10, 10 + length)
        return TrainedResponse(
            ids, np.full(length, value, np.float32), -np.arange(1, length + 1, dtype=np.float32), length + 0.5
        )

    return TrainedPair(name, np.arange(2, 2 + prompt), response(chosen, 0.25), response(rejected, 0.75))


@pytest.mark.parametrize("share", [False, True])
def test_the_row_s_tokens_are_those_of_the_matrices(share: bool) -> None:
    batch = collate([pair("a", 2, 3, 1), pair("b", 1, 1, 2)], share, CPU)
    assert batch.row.targets.tolist() == [10, 11, 12, 10, 10, 10, 11]
    assert batch.mask.tolist() == [[True, True, True], [True, False, False], [True, False, False], [True, True, False]]
    assert batch.weights[1].tolist() == [0.75, 0, 0]
    assert batch.ref_logps[3].tolist() == [-1, -2, 0]
    assert batch.lengths.tolist() == [3.5, 1.5, 1.5, 2.5]
    assert batch.row.input_ids.shape == (1, 10 if share else 13)


def test_responses_split_chosen_from_rejected() -> None:
    batch = collate([pair("a", 2, 3, 1), pair("b", 1, 1, 2)], True, CPU)
    judged = batch.judged(torch.arange(1.0, 8.0))
    chosen, rejected = judged.chosen, judged.rejected
    assert chosen.logps.tolist() == [[1, 2, 3], [5, 0, 0]]
    assert rejected.logps.tolist() == [[4, 0, 0], [6, 7, 0]]
    assert rejected.lengths.tolist() == [1.5, 2.5]
    assert rejected.ref_logps is not None
    assert rejected.ref_logps[1].tolist() == [-1, -2, 0]
    assert chosen.mask.tolist() == [[True, True, True], [True, False, False]]


def test_the_third_response_lies_beside_the_pair_s_own() -> None:
    pairs = [replace(pair(name, 2, 3, 1), third=pair(name, 2, 2, 1).chosen) for name in "ab"]
    batch = collate(pairs, True, CPU)
    assert batch.sides == 3
    judged = batch.judged(torch.arange(1.0, 13.0), torch.arange(101.0, 113.0), torch.tensor(0.5))
    assert judged.chosen.logps.tolist() == [[1, 2, 3], [7, 8, 9]]
    assert judged.rejected.logps.tolist() == [[4, 0, 0], [10, 0, 0]]
    assert judged.third is not None
    assert judged.third.logps.tolist() == [[5, 6, 0], [11, 12, 0]]
    assert judged.third.kls.tolist() == [[105, 106, 0], [111, 112, 0]]
    assert judged.kl_baseline == 0.5
    assert pairs[0].tokens == 3 * 2 + 3 + 1 + 2


def test_without_a_reference_there_are_no_log_ratios() -> None:
    def bare(response: TrainedResponse) -> TrainedResponse:
        return replace(response, ref_logps=None)

    one = pair("a", 2, 3, 1)
    batch = collate([replace(one, chosen=bare(one.chosen), rejected=bare(one.rejected))], True, CPU)
    assert batch.ref_logps is None
    with pytest.raises(ValueError, match="reference"):
        log_ratios(batch.judged(torch.zeros(4)).chosen)


def test_groups_stay_within_the_budget_and_a_long_pair_is_alone() -> None:
    pairs = [pair(name, 2, length, 1) for name, length in (("a", 3), ("b", 20), ("c", 4), ("d", 8), ("e", 1))]
    for share, budget in ((True, 13), (False, 15)):
        groups = split_pairs(pairs, budget, share)
        assert sorted(one.pair_id for group in groups for one in group) == list("abcde")
        assert [one.pair_id for one in groups[0]] == ["b"]
        for group in groups[1:]:
            assert collate(group, share, CPU).row.input_ids.numel() <= budget
        assert len(groups) == 4
    assert split_pairs([], 13, True) == []


def test_a_filler_has_no_weight() -> None:
    for sides in (1, 2, 3):
        made = filler(sides, reference=True, device=CPU)
        assert made.pair_weights.tolist() == [0]
        assert made.mask.tolist() == [[True]] * sides
        assert made.ref_logps is not None
    assert filler(2, reference=False, device=CPU).ref_logps is None

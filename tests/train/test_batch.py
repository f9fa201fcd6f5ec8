"""Padded micro-batches."""

import numpy as np
import torch

from pipeline.train.batch import collate, micro_batches
from pipeline.train.pairs import TrainedPair, TrainedResponse

CPU = torch.device("cpu")


def pair(name: str, prompt: int, chosen: int, rejected: int) -> TrainedPair:
    def response(length: int, value: float) -> TrainedResponse:
        ids = np.arange(10, 10 + length)
        return TrainedResponse(
            ids, np.full(length, value, np.float32), -np.arange(1, length + 1, dtype=np.float32), length + 0.5
        )

    return TrainedPair(name, np.arange(2, 2 + prompt), response(chosen, 0.25), response(rejected, 0.75))


def test_rows_are_prompt_and_response_padded_on_the_right() -> None:
    batch = collate([pair("a", 2, 3, 1), pair("b", 1, 1, 2)], CPU)
    assert batch.input_ids.tolist() == [[2, 3, 10, 11, 12], [2, 10, 0, 0, 0], [2, 3, 10, 0, 0], [2, 10, 11, 0, 0]]
    assert batch.attention_mask.sum(dim=1).tolist() == [5, 2, 3, 3]
    assert batch.response_mask[0].tolist() == [False, False, True, True, True]
    assert batch.weights[2].tolist() == [0, 0, 0.75, 0, 0]
    assert batch.ref_logps[3].tolist() == [0, -1, -2, 0, 0]
    assert batch.lengths.tolist() == [3.5, 1.5, 1.5, 2.5]


def test_responses_split_chosen_from_rejected() -> None:
    batch = collate([pair("a", 2, 3, 1), pair("b", 1, 1, 2)], CPU)
    chosen, rejected = batch.responses(torch.arange(20.0).reshape(4, 5))
    assert chosen.logps.tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert rejected.lengths.tolist() == [1.5, 2.5]
    assert rejected.ref_logps is not None
    assert rejected.ref_logps[1].tolist() == [0, -1, -2, 0, 0]


def test_pairs_of_like_length_share_a_micro_batch_and_fillers_follow() -> None:
    pairs = [pair(name, 2, length, 1) for name, length in (("a", 3), ("b", 9), ("c", 4), ("d", 8), ("e", 1))]
    batches = micro_batches(pairs, 2, CPU, count=5)
    assert [[one.pair_id for one in batch.pairs] for batch in batches] == [["b", "d"], ["c", "a"], ["e"], [""], [""]]
    assert [batch.pair_weights.tolist() for batch in batches] == [[1, 1], [1, 1], [1], [0], [0]]


def test_no_pairs_are_no_micro_batches() -> None:
    assert micro_batches([], 2, CPU) == []

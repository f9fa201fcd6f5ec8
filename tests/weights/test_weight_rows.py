"""A shard's responses: the order of rows, and statistics by side."""

import numpy as np
import pytest

from pipeline.config.postprocess import PostprocessParams
from pipeline.errors import DataError, NonFiniteError
from pipeline.weights.postprocess import response_weights
from pipeline.weights.rows import ScoredResponse, postprocess_rows
from pipeline.weights.stats import WeightStatistics

PARAMS = PostprocessParams()


def row(pair_id, response, n=6, seed=0):
    generator = np.random.default_rng(seed)
    round_1, round_2 = generator.random((2, n)).astype(np.float32)
    return ScoredResponse(pair_id=pair_id, response=response, token_ids=np.arange(n), round_1=round_1, round_2=round_2)


def run(rows):
    statistics = {"chosen": WeightStatistics(), "rejected": WeightStatistics()}
    return list(postprocess_rows(rows, PARAMS, statistics)), statistics


def test_weights_row_by_row_and_statistics_by_side():
    rows = [row("p0", "chosen", 6, 1), row("p0", "rejected", 3, 2), row("p1", "chosen", 9, 3)]
    weights, statistics = run(rows)
    for given, got in zip(rows, weights, strict=True):
        expected = response_weights(given.round_1, given.round_2, PARAMS, pair_id="", response="").weights
        assert got.tolist() == expected.tolist()
    assert statistics["chosen"].with_sink.means()["length"] == 7.5
    assert statistics["rejected"].with_sink.means()["length"] == 3
    # The fix takes the sink out of the first token: there, 1/n on average over 6 and 9 tokens.
    assert statistics["chosen"].without_sink.means()["share_1"] == pytest.approx((1 / 6 + 1 / 9) / 2)
    assert statistics["chosen"].tokens.occurrences.tolist() == [2] * 6 + [1] * 3


def test_ids_of_another_length_name_the_pair():
    good = row("p3", "chosen")
    damaged = ScoredResponse(
        pair_id="p3", response="chosen", token_ids=np.arange(5), round_1=good.round_1, round_2=good.round_2
    )
    with pytest.raises(DataError, match="pair p3, chosen response: 5 token ids but 6 scores"):
        run([damaged])


def test_a_bad_score_stops_the_shard_by_name():
    bad = row("p4", "rejected")
    bad.round_2[2] = np.nan
    with pytest.raises(NonFiniteError, match="pair p4, rejected response, round 2: the score of token 2"):
        run([row("p3", "chosen"), bad])

"""Statistics gathered response by response against those of everything at once."""

from collections import defaultdict

import numpy as np
import pytest

from pipeline.weights.stats import SpreadSums, TokenSums, WeightStatistics


def responses(count=60, seed=3):
    """(token ids, weights before, weights after) of random responses of 1 to 30 tokens."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        n = int(generator.integers(1, 31))
        before, after = generator.dirichlet(np.ones(n)), generator.dirichlet(np.ones(n)).astype(np.float32)
        yield generator.integers(0, 40, n).astype(np.int32), before, after


def collect(rows):
    statistics = WeightStatistics()
    for row in rows:
        statistics.add(*row)
    return statistics


def table_1(lists):
    return {
        "std": np.mean([np.std(w.astype(np.float64), ddof=0) for w in lists]),
        "max": np.mean([w.max() for w in lists]),
        "length": np.mean([len(w) for w in lists]),
        **{f"share_{k + 1}": np.mean([w[k] if len(w) > k else 0 for w in lists]) for k in range(3)},
    }


def test_table_1_before_and_after_the_sink_fix():
    rows = list(responses())
    statistics = collect(rows)
    assert statistics.with_sink.means() == pytest.approx(table_1([before for _, before, _ in rows]), rel=1e-6)
    assert statistics.without_sink.means() == pytest.approx(table_1([after for _, _, after in rows]), rel=1e-6)


def test_table_1_of_a_response_by_hand():
    sums = SpreadSums()
    sums.add(np.array([0.7, 0.1, 0.1, 0.1]))
    expected = {"std": 0.2598076211, "max": 0.7, "length": 4, "share_1": 0.7, "share_2": 0.1, "share_3": 0.1}
    assert sums.means() == pytest.approx(expected)


def test_table_2_is_the_mean_over_occurrences_of_the_weights_after_the_fix():
    rows = list(responses())
    seen = defaultdict(list)
    for ids, _, after in rows:
        for token, weight in zip(ids.tolist(), after.tolist(), strict=True):
            seen[token].append(weight)
    expected = sorted(((-np.mean(w), t, len(w)) for t, w in seen.items() if len(w) >= 20))[:10]
    best = collect(rows).tokens.most_weighted(10, min_occurrences=20)
    assert [(row.token_id, row.occurrences) for row in best] == [(token, count) for _, token, count in expected]
    np.testing.assert_allclose([row.mean_weight for row in best], [-mean for mean, _, _ in expected], rtol=1e-9)


def test_rare_tokens_are_left_out_and_equal_means_go_by_id():
    tokens = TokenSums()
    tokens.add(np.array([5, 2, 9, 2, 5]), np.array([0.1, 0.1, 0.6, 0.1, 0.1]))
    assert [(row.token_id, row.occurrences) for row in tokens.most_weighted(10, 2)] == [(2, 2), (5, 2)]
    assert [row.token_id for row in tokens.most_weighted(1, 1)] == [9]
    assert [row.token_id for row in tokens.most_weighted(9, 0)] == [9, 2, 5]


def test_nothing_seen():
    statistics = WeightStatistics()
    assert set(statistics.with_sink.means().values()) == {0.0}
    assert statistics.tokens.most_weighted(10, 1) == []

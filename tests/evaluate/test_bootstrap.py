"""Bootstrap intervals against the normal theory, and against numpy's own resampling."""

from statistics import NormalDist

import numpy as np
import pytest

from pipeline.evaluate import bootstrap
from pipeline.evaluate.bootstrap import mean_intervals


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
def test_interval_of_a_mean_is_that_of_normal_theory(confidence: float) -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=(400, 1))
    (interval,) = mean_intervals(values, samples=20_000, confidence=confidence, seed=1)
    half = NormalDist().inv_cdf((1 + confidence) / 2) * values.std() / np.sqrt(len(values))
    assert interval.mean == values.mean()
    assert interval.low == pytest.approx(interval.mean - half, abs=0.02 * half + 0.003)
    assert interval.high == pytest.approx(interval.mean + half, abs=0.02 * half + 0.003)


def test_equals_resampling_one_by_one() -> None:
    values = np.random.default_rng(5).normal(size=(7, 3))
    drawn = np.random.default_rng(42).integers(0, 7, size=(300, 7))
    means = np.array([values[rows].mean(axis=0) for rows in drawn])
    for column, interval in enumerate(mean_intervals(values, samples=300, confidence=0.8, seed=42)):
        assert interval.low == pytest.approx(np.quantile(means[:, column], 0.1), abs=1e-12)
        assert interval.high == pytest.approx(np.quantile(means[:, column], 0.9), abs=1e-12)


def test_drawing_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).normal(size=(11, 2))
    whole = mean_intervals(values, samples=101, confidence=0.9, seed=7)
    monkeypatch.setattr(bootstrap, "_CELLS", 110)
    assert mean_intervals(values, samples=101, confidence=0.9, seed=7) == whole


def test_pairs_are_drawn_whole_so_a_sum_of_numbers_is_the_sum_of_means() -> None:
    first = np.random.default_rng(3).normal(size=30)
    intervals = mean_intervals(np.stack([first, -first, 2 * first], axis=1), samples=500, confidence=0.9, seed=0)
    assert intervals[1].low == pytest.approx(-intervals[0].high, abs=1e-12)
    assert intervals[2].high == pytest.approx(2 * intervals[0].high, abs=1e-12)


def test_one_pair_has_no_spread_and_another_seed_another_interval() -> None:
    (interval,) = mean_intervals(np.array([[0.25]]), samples=100, confidence=0.95, seed=42)
    assert interval.low == interval.mean == interval.high == 0.25
    values = np.random.default_rng(0).normal(size=(50, 1))
    low = [mean_intervals(values, samples=100, confidence=0.95, seed=seed)[0].low for seed in (1, 1, 2)]
    assert low[0] == low[1] != low[2]

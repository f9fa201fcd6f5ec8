"""The table of pairs and the metrics made of it."""

import json

import pytest

from pipeline.config.evaluate import EvaluateParams
from pipeline.evaluate.table import EVALUATED, NUMBERS, pairs_table, summary


def test_metrics_are_means_with_intervals_and_fit_json() -> None:
    rows = [(f"p{index}", {name: float(index % 2) for name in NUMBERS}) for index in range(40)]
    table = pairs_table(rows)
    assert table.schema == EVALUATED
    metrics = summary(table, EvaluateParams())
    assert metrics["pairs"] == 40
    assert set(NUMBERS) <= set(metrics)
    assert metrics["weighted_accuracy"]["mean"] == 0.5
    assert metrics["weighted_accuracy"]["low"] == pytest.approx(0.35, abs=0.03)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_without_test_pairs_the_metrics_say_so() -> None:
    assert summary(pairs_table([]), EvaluateParams()) == {"pairs": 0}

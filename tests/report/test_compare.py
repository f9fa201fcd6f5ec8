"""The comparison's table: what is in it, and that it tells apart only what is apart."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.evaluate.table import NUMBERS
from pipeline.report.compare import (
    COLUMNS,
    Row,
    comparison_table,
    difference_table,
    draw_comparison,
    fewer_trained,
    left_out,
    on_common_pairs,
    seed_table,
)
from stages.compare import by_seeds, made_with_labels

DRAWN = (200, 0.95, 1)


def row(name: str, accuracy: float, margin: float, spread: float = 1.0) -> Row:
    random = np.random.default_rng(len(name))
    numbers = {column: random.normal(margin, spread, 400) for column in COLUMNS}
    numbers["plain_accuracy"] = (np.arange(400) < 400 * accuracy).astype(float)
    ids = tuple(f"pair {number}" for number in range(400))
    return Row(name, ids, numbers, np.array([10.0, 15.0]), minutes=3.25, memory_mib=2048.0, train_pairs=94)


def test_margins_are_in_nats_whatever_beta() -> None:
    values = {name: np.full(3, float(place)) for place, name in enumerate(NUMBERS)}
    values["weighted_margin"] = np.array([0.2, 0.4, -0.6])
    table = pa.table({"pair_id": ["a", "b", "c"], **values})
    found = Row.read("r", table, beta=0.1, answer_tokens=[1], minutes=1.0, memory_mib=1.0, train_pairs=3).numbers
    assert found["weighted"].tolist() == pytest.approx([2.0, 4.0, -6.0])
    assert found["plain"].tolist() == [values["chosen_shift"][0] - values["rejected_shift"][0]] * 3
    assert set(found) == set(COLUMNS)


def test_every_row_has_its_line() -> None:
    text = comparison_table([row("dpo", 0.75, 2.0), row("twdpo", 0.5, -1.0)], *DRAWN)
    assert "`dpo`" in text
    assert "75.0%" in text
    assert "2,048" in text
    assert "12.5 (10.0 to 15.0)" in text
    assert text.count("\n") == 3


def test_what_differs_is_said_to_be_apart_and_what_does_not_is_not() -> None:
    rows = [row("a", 0.5, 0.0), row("bb", 0.5, 0.001), row("ccc", 0.9, 5.0)]
    _, _, same, other = difference_table(rows, *DRAWN).splitlines()
    assert "apart" not in same
    assert other.count("apart") == 2


def test_rows_are_compared_on_the_pairs_that_all_have() -> None:
    whole = row("a", 0.5, 0.0)
    places = np.arange(399, 99, -1)
    fewer = replace(
        whole,
        name="b",
        pair_ids=tuple(whole.pair_ids[place] for place in places),
        numbers={name: of[places] for name, of in whole.numbers.items()},
    )
    common = on_common_pairs([whole, fewer])
    assert common[0].pair_ids == common[1].pair_ids == whole.pair_ids[100:]
    for name in COLUMNS:
        assert (common[0].numbers[name] == common[1].numbers[name]).all()
    assert left_out([whole, fewer], common) == [
        "Compared are the pairs that every row can use. These have more: `a` 400."
    ]
    assert left_out([whole], on_common_pairs([whole])) == []


def test_seeds_are_summed_up_by_their_mean_and_extremes() -> None:
    other = replace(row("dpo-seed-1", 0.5, 0.0), numbers=row("dpo", 0.25, 0.0).numbers | {"kl": np.full(400, 0.25)})
    first = replace(row("dpo", 0.75, 0.0), numbers=row("dpo", 0.75, 0.0).numbers | {"kl": np.full(400, 0.75)})
    line = seed_table([[first, other]]).splitlines()[2]
    assert line.startswith("| `dpo` | 2 | 50.0% (25.0% to 75.0%) |")
    assert "0.5000 (0.2500 to 0.7500)" in line


def test_rows_are_seeds_of_each_other_where_nothing_else_differs() -> None:
    params = [{"train": {"seed": seed, "beta": beta}} for seed, beta in ((1, 0.1), (2, 0.1), (1, 0.2))]
    rows = [row(name, 0.5, 0.0) for name in ("a", "b", "c")]
    assert by_seeds(rows, params) == [rows[:2]]
    assert by_seeds(rows, [{**of, "runtime": {"threads": place}} for place, of in enumerate(params)]) == [rows[:2]]
    # The same row under two names is not two seeds.
    assert by_seeds(rows, [params[0], params[0], params[1]]) == [[rows[0], rows[2]]]
    assert by_seeds(rows[:2], [params[0], params[0]]) == []


def test_rows_that_had_fewer_pairs_to_train_on_are_named() -> None:
    rows = [row("dpo", 0.5, 0.0), replace(row("tpo", 0.5, 0.0), train_pairs=19)]
    assert fewer_trained(rows) == ["Trained on fewer than 94 pairs: `tpo` 19."]
    assert fewer_trained(rows[:1]) == []


def test_weights_that_hold_the_label_are_named() -> None:
    rows = [row(name, 0.5, 0.0) for name in ("dpo", "tis-dpo")]
    params = [{"weights": {"source": source}} for source in ("uniform", "contrast")]
    [said] = made_with_labels(rows, params)
    assert "`tis-dpo`" in said
    assert "`dpo`" not in said
    assert made_with_labels(rows[:1], params[:1]) == []
    for blind in ({"transform": "random"}, {"transform": "binary", "top_percent": 100.0}):
        assert made_with_labels(rows[:1], [{"weights": {"source": "contrast", "contrast": blind}}]) == []


def test_the_chart_is_drawn(tmp_path: Path) -> None:
    draw_comparison([row("a", 0.5, 0.0), row("<b>", 0.9, 1.0)], *DRAWN, tmp_path / "chart.svg")
    assert (tmp_path / "chart.svg").read_text(encoding="utf-8").startswith("<?xml")

"""The comparison of rows: one table with bootstrap intervals, and a bar chart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.evaluate.bootstrap import Interval, mean_intervals
from pipeline.report.markdown import table
from pipeline.report.numbers import decimal, percent
from pipeline.report.style import DOTTED, PLAIN, WEIGHTED, drawing, legend_above

Floats = NDArray[np.float64]


COLUMNS = ("plain_accuracy", "plain", "weighted_accuracy", "weighted", "chosen_shift", "rejected_shift", "kl")
"""Accuracies; margins of log-ratio sums in nats, plain and by the row's own weights; shifts; KL(start || policy) a
token."""


@dataclass(frozen=True)
class Row:
    """One row: N test pairs."""

    name: str
    pair_ids: tuple[str, ...]
    numbers: Mapping[str, Floats]
    """[N] each, by COLUMNS."""
    answer_tokens: Floats
    """One entry per answer."""
    minutes: float
    """Of training."""
    memory_mib: float
    """Largest resident size (or allocation on the GPU) of training."""
    train_pairs: int
    """Pairs that training had."""

    @classmethod
    def read(
        cls,
        name: str,
        pairs: pa.Table,
        *,
        beta: float,
        answer_tokens: Sequence[int],
        minutes: float,
        memory_mib: float,
        train_pairs: int,
    ) -> "Row":
        """A row from its `pairs.parquet`. Margins are divided by beta, which differs between rows."""
        found = {column: pairs[column].to_numpy() for column in pairs.column_names if column != "pair_id"}
        numbers = {
            "plain_accuracy": found["plain_accuracy"],
            "plain": found["chosen_shift"] - found["rejected_shift"],
            "weighted_accuracy": found["weighted_accuracy"],
            "weighted": found["weighted_margin"] / beta,
            "chosen_shift": found["chosen_shift"],
            "rejected_shift": found["rejected_shift"],
            "kl": (found["chosen_kl_forward"] + found["rejected_kl_forward"]) / 2,
        }
        tokens = np.array(answer_tokens, np.float64)
        return cls(name, tuple(pairs["pair_id"].to_pylist()), numbers, tokens, minutes, memory_mib, train_pairs)


def on_common_pairs(rows: Sequence[Row]) -> list[Row]:
    """The rows on the test pairs that all of them have: a source may refuse pairs that another one takes."""
    common = set.intersection(*(set(row.pair_ids) for row in rows))
    order = [pair_id for pair_id in rows[0].pair_ids if pair_id in common]
    kept = []
    for row in rows:
        places = {pair_id: place for place, pair_id in enumerate(row.pair_ids)}
        index = [places[pair_id] for pair_id in order]
        kept.append(replace(row, pair_ids=tuple(order), numbers={name: of[index] for name, of in row.numbers.items()}))
    return kept


def left_out(rows: Sequence[Row], common: Sequence[Row]) -> list[str]:
    """A sentence where rows have more test pairs than are compared; nothing otherwise."""
    more = [
        f"`{row.name}` {len(row.pair_ids)}"
        for row, kept in zip(rows, common, strict=True)
        if len(row.pair_ids) > len(kept.pair_ids)
    ]
    return [f"Compared are the pairs that every row can use. These have more: {', '.join(more)}."] if more else []


def fewer_trained(rows: Sequence[Row]) -> list[str]:
    """A sentence where rows were trained on fewer pairs than others; nothing otherwise."""
    most = max(row.train_pairs for row in rows)
    fewer = [f"`{row.name}` {row.train_pairs:,}" for row in rows if row.train_pairs < most]
    return [f"Trained on fewer than {most:,} pairs: {', '.join(fewer)}."] if fewer else []


def comparison_table(rows: Sequence[Row], samples: int, confidence: float, seed: int) -> str:
    """One line a row: means, and intervals over test pairs."""
    header = [
        "row", "accuracy", "margin, nats", "accuracy, weighted", "margin, weighted", "chosen, nats", "rejected, nats",
        "KL a token", "answer tokens", "minutes", "peak MiB",
    ]  # fmt: skip
    lines = []
    for row in rows:
        intervals = _intervals(row, samples, confidence, seed)
        lines.append([f"`{row.name}`", *(_cell(name, intervals[name]) for name in COLUMNS)])
        lines[-1] += [_answers(row, samples, confidence, seed), decimal(row.minutes, 1), decimal(row.memory_mib, 0)]
    return table(header, lines)


def difference_table(rows: Sequence[Row], samples: int, confidence: float, seed: int) -> str:
    """Each row less the first one, pair by pair: an interval that holds 0 tells nothing apart."""
    first, *others = rows
    lines = []
    for row in others:
        values = np.stack([row.numbers[name] - first.numbers[name] for name in ("plain_accuracy", "plain")], axis=1)
        accuracy, margin = mean_intervals(values, samples, confidence, seed)
        lines.append(
            [f"`{row.name}`", _cell("plain_accuracy", accuracy), _told(accuracy), _cell("plain", margin), _told(margin)]
        )
    return table([f"row less `{first.name}`", "accuracy", "", "margin, nats", ""], lines)


def seed_table(groups: Sequence[Sequence[Row]]) -> str:
    """One line for each row that was trained with several seeds: means over them, and the lowest and highest.

    groups: rows that differ by their seeds alone, the first one's name stands for all.
    """
    names = ("plain_accuracy", "plain", "kl")
    lines = []
    for group in groups:
        means = {name: [float(row.numbers[name].mean()) for row in group] for name in names}
        spread = {name: Interval(sum(of) / len(of), min(of), max(of)) for name, of in means.items()}
        lines.append([f"`{group[0].name}`", str(len(group)), *(_cell(name, spread[name]) for name in names)])
    return table(["row", "seeds", "accuracy", "margin, nats", "KL a token"], lines)


def draw_comparison(rows: Sequence[Row], samples: int, confidence: float, seed: int, path: Path) -> None:
    """Accuracies with their intervals, plain and weighted."""
    with drawing(path, 1, 1, width=9, height=0.34 * len(rows) + 1.4) as [axes]:
        places = np.arange(len(rows))[::-1]
        for name, label, color, shift in (
            ("plain_accuracy", "plain", PLAIN, 0.18),
            ("weighted_accuracy", "by the row's own weights", WEIGHTED, -0.18),
        ):
            found = [_intervals(row, samples, confidence, seed)[name] for row in rows]
            means = np.array([interval.mean for interval in found])
            spread = np.array([[i.mean - i.low for i in found], [i.high - i.mean for i in found]])
            axes.barh(places + shift, 100 * means, 0.34, color=color, label=label, xerr=100 * spread, ecolor="#1f2328")
        axes.set_yticks(places, [row.name for row in rows])
        axes.axvline(50, **DOTTED)
        axes.set(xlabel="% of test pairs whose chosen response has the greater implicit reward")
        legend_above(axes)


def _intervals(row: Row, samples: int, confidence: float, seed: int) -> dict[str, Interval]:
    values = np.stack([row.numbers[name] for name in COLUMNS], axis=1)
    return dict(zip(COLUMNS, mean_intervals(values, samples, confidence, seed), strict=True))


def _cell(name: str, interval: Interval) -> str:
    if name.endswith("accuracy"):
        return f"{percent(interval.mean)} ({percent(interval.low)} to {percent(interval.high)})"
    digits = 4 if name == "kl" else 2
    return f"{decimal(interval.mean, digits)} ({decimal(interval.low, digits)} to {decimal(interval.high, digits)})"


def _answers(row: Row, samples: int, confidence: float, seed: int) -> str:
    if not len(row.answer_tokens):
        return ""
    [interval] = mean_intervals(row.answer_tokens[:, None], samples, confidence, seed)
    return f"{decimal(interval.mean, 1)} ({decimal(interval.low, 1)} to {decimal(interval.high, 1)})"


def _told(interval: Interval) -> str:
    return "" if interval.low <= 0 <= interval.high else "apart"

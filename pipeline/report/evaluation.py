"""The section on the result: policy against start on test pairs, and a few answers before and after."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.report.markdown import escaped, image, table
from pipeline.report.numbers import percent, significant
from pipeline.report.style import COLORS, DOTTED, INK, MUTED, PLAIN, WEIGHTED, drawing, legend_above

_ACCURACIES = {
    "weighted_accuracy": ("implicit reward, weighted", WEIGHTED),
    "plain_accuracy": ("implicit reward, plain", PLAIN),
    "start_likelihood_accuracy": ("likelihood per token, start", MUTED),
    "policy_likelihood_accuracy": ("likelihood per token, policy", INK),
}
_ROWS = (
    ("accuracy of weighted implicit rewards", "weighted_accuracy", "50%"),
    ("accuracy of plain implicit rewards", "plain_accuracy", "50%"),
    ("margin of weighted rewards", "weighted_margin", "0"),
    ("margin of plain rewards", "plain_margin", "0"),
    ("loss on weighted rewards", "weighted_loss", "0.693"),
    ("log-prob of chosen responses, shift in nats", "chosen_shift", "0"),
    ("log-prob of rejected responses, shift in nats", "rejected_shift", "0"),
    ("the same per token, chosen", "chosen_shift_per_token", "0"),
    ("the same per token, rejected", "rejected_shift_per_token", "0"),
    ("KL(start ‖ policy) per token, chosen", "chosen_kl_forward", "0"),
    ("KL(start ‖ policy) per token, rejected", "rejected_kl_forward", "0"),
    ("KL(policy ‖ start) per token, chosen", "chosen_kl_reverse", "0"),
    ("KL(policy ‖ start) per token, rejected", "rejected_kl_reverse", "0"),
)
_DOTS = 2000
"""Pairs drawn as dots: every one is an element of the picture."""


def evaluation_section(metrics: Mapping[str, Any], pairs: pa.Table, figures: Path) -> str:
    """Table and figure; writes `evaluation.svg` into `figures` where there are test pairs."""
    if not metrics["pairs"]:
        return "There are no test pairs: name some in `prepare.test` to compare policy and start."
    draw_evaluation(metrics, pairs, figures / "evaluation.svg")
    rows = []
    for label, name, start in _ROWS:
        form = percent if name.endswith("accuracy") else significant
        low, high = form(metrics[name]["low"]), form(metrics[name]["high"])
        rows.append([label, start, form(metrics[name]["mean"]), f"{low} to {high}"])
    likelihood = {model: metrics[f"{model}_likelihood_accuracy"] for model in ("start", "policy")}
    policy = likelihood["policy"]
    rows.append(
        [
            "chosen has more log-prob per token than rejected",
            percent(likelihood["start"]["mean"]),
            percent(policy["mean"]),
            f"{percent(policy['low'])} to {percent(policy['high'])}",
        ]
    )
    return "\n\n".join(
        [
            f"{metrics['pairs']:,} test pairs that training never saw, with {percent(metrics['confidence'], 0)}"
            " bootstrap intervals over pairs. Weighted rewards are β |y| Σ aₜ rₜ of Eq. 5 with the run's weights"
            " (without |y| where the objective has none), plain ones β Σ rₜ as in DPO; ties count one half. Divergences"
            " are exact over the vocabulary, at the positions of the data's responses; responses are not sampled from"
            " the policy.",
            table(["", "start", "policy", f"{percent(metrics['confidence'], 0)} interval"], rows),
            image("figures/evaluation.svg", "Accuracies with intervals, margins of pairs, log-prob shifts"),
        ]
    )


def answers_section(answers: Sequence[Mapping[str, Any]]) -> str:
    """Greedy answers of start and policy to the prompts in params."""
    if not answers:
        return "No prompts: give some in `evaluate.prompts`."
    rows = [[escaped(answer[name]) for name in ("prompt", "before", "after")] for answer in answers]
    return "\n\n".join(
        ["Greedy answers to `evaluate.prompts`, cut at `evaluate.max_new_tokens`.", _answers_table(rows, answers)]
    )


def draw_evaluation(metrics: Mapping[str, Any], pairs: pa.Table, path: Path) -> None:
    """Three panels: accuracies with their intervals, margins of all pairs, and which responses gained probability."""
    with drawing(path, 1, 3, width=11, height=3.4) as (accuracies, margins, shifts):
        _draw_accuracies(accuracies, metrics)
        _draw_margins(margins, pairs)
        _draw_shifts(shifts, pairs)


def _draw_accuracies(axes: Axes, metrics: Mapping[str, Any]) -> None:
    for place, (name, (label, color)) in enumerate(_ACCURACIES.items()):
        low, mean, high = (100 * metrics[name][key] for key in ("low", "mean", "high"))
        axes.plot([low, high], [place, place], color=color, linewidth=2.2)
        axes.plot(mean, place, "o", color=color, markersize=7)
        label = f"{label}: {percent(mean / 100, 0)}"
        axes.text(0, place - 0.28, label, fontsize=8.5, color=color, bbox={"color": "white", "pad": 1.0})
    axes.axvline(50, **DOTTED)
    axes.set(title="Prefers the chosen response", xlabel="% of pairs", xlim=(0, 100), ylim=(3.4, -0.7))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _draw_margins(axes: Axes, pairs: pa.Table) -> None:
    values = {name: pairs[f"{name}_margin"].to_numpy() for name in ("weighted", "plain")}
    edges = _edges(np.concatenate(list(values.values())))
    for (name, margin), color in zip(values.items(), (WEIGHTED, PLAIN), strict=True):
        axes.hist(margin, bins=edges, histtype="stepfilled", color=color, alpha=0.18)
        axes.hist(margin, bins=edges, histtype="step", color=color, linewidth=1.6, label=name)
    axes.axvline(0, **DOTTED)
    axes.set(title="Margins", xlabel="reward of chosen less rejected", ylabel="pairs")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(axes)


def _draw_shifts(axes: Axes, pairs: pa.Table) -> None:
    chosen, rejected = (pairs[f"{name}_shift_per_token"].to_numpy()[:_DOTS] for name in ("chosen", "rejected"))
    low, high = _span(np.concatenate([chosen, rejected]))
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    axes.plot([low, high], [low, high], **DOTTED)
    axes.plot(rejected, chosen, "o", color=INK, markersize=4.5, alpha=0.55, markeredgewidth=0)
    which = f", first {_DOTS:,} pairs" if len(pairs) > _DOTS else ""
    axes.set(title=f"Log-prob shift{which}", xlim=(low, high), ylim=(low, high))
    axes.set_xlabel("rejected, nats per token", color=COLORS["rejected"])
    axes.set_ylabel("chosen, nats per token", color=COLORS["chosen"])


def _answers_table(rows: Sequence[Sequence[str]], answers: Sequence[Mapping[str, Any]]) -> str:
    same = sum(answer["before"] == answer["after"] for answer in answers)
    note = f"\n\n{same} of {len(answers)} answers are the same." if same else ""
    return table(["prompt", "start", "policy"], rows, left=3) + note


def _edges(values: np.ndarray) -> list[float]:
    """Edges of about 30 equal bins, one of which is at 0."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    width = max((high - low) / 30, 1e-12)
    return list(np.arange(np.floor(low / width), np.ceil(high / width) + 2) * width)


def _span(values: np.ndarray) -> tuple[float, float]:
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    room = 0.06 * (high - low) or 1e-3
    return low - room, high + room

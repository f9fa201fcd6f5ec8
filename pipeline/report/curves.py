"""Training curves: what the policy learned from step to step, on training batches and on validation pairs."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipeline.report.markdown import image, table
from pipeline.report.numbers import percent, significant
from pipeline.report.read import Curve
from pipeline.report.style import CHOSEN, DOTTED, INK, PLAIN, REJECTED, WEIGHTED, drawing, legend_above

Curves = Mapping[str, Curve]


def training_section(curves: Curves, metrics: Mapping[str, Any], figures: Path) -> str:
    """Text, table and figure of training; writes `training.svg` into `figures`."""
    draw_curves(curves, metrics.get("kept_step"), figures / "training.svg")
    parts = [
        f"{metrics['steps']:,} optimizer steps over {metrics['pairs']:,} pairs; the policy is that of step"
        f" {metrics['kept_step']:,}. Thin lines: training batches. Lines with dots:"
        f" validation pairs ({metrics['validation_pairs']:,}).",
        image("figures/training.svg", "Training and validation curves: loss, rewards, margins, accuracies"),
    ]
    first, last = metrics["first_tenth"], metrics["last_tenth"]
    rows = [
        ["loss", significant(first["loss"]), significant(last["loss"])],
        ["margin, weighted rewards", significant(first["rewards/margins"]), significant(last["rewards/margins"])],
        ["accuracy, weighted", percent(first["rewards/accuracies"]), percent(last["rewards/accuracies"])],
        ["accuracy, plain", percent(first["plain/accuracies"]), percent(last["plain/accuracies"])],
    ]
    parts.append(table(["training batches, mean", "first tenth of steps", "last tenth"], rows))
    return "\n\n".join(parts)


def draw_curves(curves: Curves, kept_step: int | None, path: Path) -> None:
    """Six panels; a curve that was not recorded leaves its place empty."""
    with drawing(path, 2, 3, width=11, height=6) as (loss, rewards, margins, accuracies, norms, rates):
        _panel(loss, "Loss", "−log σ(margin), nats")
        loss.axhline(math.log(2), **DOTTED)
        _pair_of_lines(loss, curves, "loss", INK)
        _panel(rewards, "Rewards", "weighted: β |y| Σ aₜ rₜ")
        _pair_of_lines(rewards, curves, "rewards/chosen", CHOSEN, "chosen")
        _pair_of_lines(rewards, curves, "rewards/rejected", REJECTED, "rejected")
        _panel(margins, "Margin", "weighted, chosen less rejected")
        _pair_of_lines(margins, curves, "rewards/margins", INK)
        _panel(accuracies, "Accuracy", "pairs with a positive margin")
        accuracies.axhline(0.5, **DOTTED)
        _pair_of_lines(accuracies, curves, "rewards/accuracies", WEIGHTED, "weighted")
        _pair_of_lines(accuracies, curves, "plain/accuracies", PLAIN, "plain")
        accuracies.set_ylim(-0.02, 1.02)
        accuracies.yaxis.set_major_formatter(PercentFormatter(1.0))
        _panel(norms, "Gradient norm", "before clipping")
        _line(norms, curves, "train/grad_norm", INK)
        norms.set_ylim(bottom=0)
        _panel(rates, "Learning rate", "")
        _line(rates, curves, "train/learning_rate", INK)
        rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        for panel in (rewards, accuracies):
            legend_above(panel)
        if kept_step:
            loss.axvline(kept_step, color=WEIGHTED, linewidth=1)
            above: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            loss.annotate("kept", (kept_step, 1.0), (0, 3), ha="center", color=WEIGHTED, fontsize=8.5, **above)


def _panel(axes: Axes, title: str, ylabel: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.set_ylabel(ylabel)


def _pair_of_lines(axes: Axes, curves: Curves, name: str, color: str, label: str = "") -> None:
    """The training curve, thin, and the validation curve of the same figure, with dots."""
    validation = curves.get(f"validation/{name}")
    if validation is None:
        _line(axes, curves, f"train/{name}", color, label=label)
        return
    _line(axes, curves, f"train/{name}", color, linewidth=1.0, alpha=0.45)
    axes.plot(validation.steps, validation.values, color=color, marker="o", markersize=4, label=label or None)


def _line(axes: Axes, curves: Curves, name: str, color: str, label: str = "", **style: Any) -> None:
    if name in curves:
        axes.plot(curves[name].steps, curves[name].values, color=color, label=label or None, **style)

"""How figures look, and how they are written: the same bytes for the same numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from pipeline.io.atomic import atomic_path

CHOSEN = "#D55E00"
REJECTED = "#0072B2"
"""Vermilion and blue of the palette of Okabe and Ito: told apart with every kind of colour vision, and in grey."""
WEIGHTED = "#007A5A"
PLAIN = "#A2528C"
"""Weighted against plain rewards: green and purple, darkened so that lines and words keep their contrast on white."""
COLORS = {"chosen": CHOSEN, "rejected": REJECTED}
INK = "#1f2328"
MUTED = "#59636e"
GRID = "#e4e8ec"

DOTTED: dict[str, Any] = {"color": MUTED, "linewidth": 1, "linestyle": (0, (1, 2))}
"""Of lines that mark where the start stands, or what uniform weights would give."""

_STYLE: dict[str, Any] = {
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    # Letters as outlines: a figure looks the same wherever it is opened.
    "svg.fonttype": "path",
    "svg.hashsalt": "attentionpo",
}


@contextmanager
def drawing(path: Path, rows: int, columns: int, width: float, height: float) -> Iterator[list[Axes]]:
    """Axes, row by row, of a figure so many inches wide and high; written to `path` as SVG when the block ends.

    The file holds no date and no version. Everything is drawn within the block, where the style above holds.
    """
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained")
        try:
            yield list(axes.flat)
            with atomic_path(path) as temporary:
                nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
                figure.savefig(temporary, format="svg", metadata=nothing)
        finally:
            plt.close(figure)


def legend_above(axes: Axes) -> None:
    """A legend in the line of the title, at its right, where it hides no data."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.985), ncols=2, handlelength=1.3, borderpad=0.2)

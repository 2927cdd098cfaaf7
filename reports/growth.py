"""How cost grows with the size of the work: one panel a kind of work, with the line through its origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.canvas import BLUE, DOTS_PER_INCH, GREY, house_style, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_growth(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draw what `atom-nas bench --growth` has measured; the file's suffix names the format."""
    with house_style():
        draw_growth(rows).savefig(file, dpi=DOTS_PER_INCH)


def draw_growth(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Seconds over size, as measured, beside growth in proportion to the size from the first point on.

    Args:
        rows: each with `work`, `of`, `sizes` and `seconds`.
    """
    figure, panels = new_figure(3.0 * len(rows), 3.1, len(rows))
    for axes, row in zip(panels, rows, strict=True):
        sizes, seconds = row["sizes"], row["seconds"]
        proportional = [seconds[0] * size / sizes[0] for size in sizes]
        axes.plot(sizes, proportional, "--", color=GREY, label="in proportion")
        axes.plot(sizes, seconds, "o-", color=BLUE, label="measured")
        axes.set(xlim=(0, None), ylim=(0, None), xlabel=row["of"], ylabel="seconds")
        axes.set_xticks(sizes)
        axes.set_title(row["work"])
    panels[0].legend()
    return figure

"""Accuracies as a heat map: a row a set, a column a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reports.canvas import BLUE, DOTS_PER_INCH, INK, house_style, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PALEST = "#E6F0F7"
_DARK_FROM = 0.7
"""From this share of the colours on, white can be read better than ink."""

Row = tuple[str, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """What is shown, R sets by C networks.

    Attributes:
        sets, networks: the names of rows and columns.
        means: percent, (R, C); NaN where nothing was measured.
        texts: what the cells say, R of C: mean, and the standard deviation where there are several values.
    """

    sets: tuple[str, ...]
    networks: tuple[str, ...]
    means: NDArray[np.float64]
    texts: tuple[tuple[str, ...], ...]


def matrix_data(rows: Sequence[Row]) -> Matrix:
    """From (name, {network: {mean, std}}) pairs, accuracies in [0, 1] and std None for a single value."""
    networks = tuple(dict.fromkeys(name for _, entries in rows for name in entries))
    nothing: Mapping[str, Any] = {"mean": float("nan"), "std": None}
    cells = [[entries.get(name, nothing) for name in networks] for _, entries in rows]
    return Matrix(
        sets=tuple(name for name, _ in rows),
        networks=networks,
        means=np.array([[100 * cell["mean"] for cell in row] for row in cells]).reshape(len(rows), -1),
        texts=tuple(tuple(_text(cell) for cell in row) for row in cells),
    )


def draw_matrix(data: Matrix, title: str) -> Figure:
    """One colour, from pale at the lowest accuracy shown to blue at the highest, with the numbers on it."""
    from matplotlib.colors import LinearSegmentedColormap

    columns, rows = len(data.networks), len(data.sets)
    width = 0.6 + 0.08 * max(map(len, data.sets)) + 1.3 * columns
    figure, (axes,) = new_figure(max(width, 0.4 + 0.09 * len(title)), 1.1 + 0.5 * rows)
    colours = LinearSegmentedColormap.from_list("accuracy", [_PALEST, BLUE])
    low, high = _range(data.means)
    axes.imshow(data.means, cmap=colours, vmin=low, vmax=high, aspect="auto")
    for row, texts in enumerate(data.texts):
        for column, text in enumerate(texts):
            dark = data.means[row, column] > low + _DARK_FROM * (high - low)
            colour = "white" if dark else INK
            axes.text(column, row, text, ha="center", va="center", color=colour)
    axes.set_xticks(range(columns), data.networks)
    axes.set_yticks(range(rows), data.sets)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def save_matrix(rows: Sequence[Row], title: str, file: Path) -> None:
    """Draw what `atom-nas evaluate` has measured; the file's suffix names the format."""
    # Without its date the same picture is the same SVG.
    metadata = {"Date": None} if file.suffix == ".svg" else None
    with house_style():
        draw_matrix(matrix_data(rows), title).savefig(file, dpi=DOTS_PER_INCH, metadata=metadata)


def _text(cell: Mapping[str, Any]) -> str:
    mean, std = cell["mean"], cell["std"]
    if mean != mean:
        return "–"
    return f"{100 * mean:.1f}" if std is None else f"{100 * mean:.1f} ± {100 * std:.1f}"


def _range(means: NDArray[np.float64]) -> tuple[float, float]:
    """Ends of the colours; a single value is shown pale."""
    finite = means[np.isfinite(means)]
    if not finite.size:
        return 0.0, 100.0
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low, low + 1.0)

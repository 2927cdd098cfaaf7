"""Rulers by what they cost and how well they agree with the reference: which are worth their price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports import formatting
from reports.canvas import BLUE, GREY, INK, ORANGE, new_figure
from reports.document import ScoreReport
from reports.scores import MEASUREMENTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FREE = 1e-3
"""Seconds at which the axis begins: what is counted without computing stands there."""
_LABEL = 0.21
"""Inches from one label to the next."""
_AROUND = 0.9
"""Inches of the figure's height that are not the axis's."""


@dataclass(frozen=True, kw_only=True)
class Ruler:
    """One ruler: mean compute-seconds an architecture, Spearman with its interval, and whether no other is as
    cheap and better."""

    label: str
    seconds: float
    value: float
    low: float | None
    high: float | None
    front: bool


def rulers(scores: Sequence[ScoreReport]) -> list[Ruler]:
    """Those with a cost and a correlation, best first; costs of trials are left out, they are no score."""
    usable = [
        (score, score.seconds_each, score.spearman.value)
        for score in scores
        if score.seconds_each is not None
        and score.spearman.value is not None
        and score.name not in MEASUREMENTS
    ]
    found = [
        Ruler(
            label=score.label,
            seconds=seconds,
            value=value,
            low=score.spearman.low,
            high=score.spearman.high,
            front=not any(cost <= seconds and other > value for _, cost, other in usable),
        )
        for score, seconds, value in usable
    ]
    return sorted(found, key=lambda ruler: -ruler.value)


def draw(shown: Sequence[Ruler], reference_seconds: float | None) -> Figure:
    """Spearman over seconds; the front is joined, a line marks what a reference trial costs, if known."""
    from matplotlib.ticker import FuncFormatter

    tall = max(3.7, _LABEL * (len(shown) + 2))
    wide = 7.0 + 0.06 * max(0, max(len(ruler.label) for ruler in shown) - 30)
    figure, (axes,) = new_figure(wide, tall + _AROUND)
    for ruler in shown:
        place, colour = max(ruler.seconds, FREE), BLUE if ruler.front else GREY
        if ruler.low is not None and ruler.high is not None:
            axes.plot([place, place], [ruler.low, ruler.high], color=colour, alpha=0.35, linewidth=1.4)
        axes.plot([place], [ruler.value], "o", color=colour, markersize=6)
    front = sorted((r for r in shown if r.front), key=lambda r: (r.seconds, r.value))
    steps = [max(ruler.seconds, FREE) for ruler in front]
    axes.plot(steps, [ruler.value for ruler in front], color=BLUE, linewidth=1, drawstyle="steps-post")
    if reference_seconds:
        axes.axvline(reference_seconds, color=ORANGE, linestyle="--", linewidth=1.2)
        axes.text(reference_seconds, 0.01, " reference", color=INK, transform=axes.get_xaxis_transform())
    longest = max([*steps, *(max(r.seconds, FREE) for r in shown), reference_seconds or FREE])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
    lows = [ruler.value if ruler.low is None else ruler.low for ruler in shown]
    axes.set(xlim=(FREE / 1.5, longest * 60), ylim=(min(0.0, *lows) - 0.03, 1.03))
    axes.set(xlabel="compute-seconds an architecture (left edge: counted, not computed)")
    axes.set_ylabel("Spearman with the reference (line: 95% interval)")
    axes.set_title("What each ruler costs, and how far it can be trusted", fontweight="bold")
    bottom, top = axes.get_ylim()
    gap = _LABEL / tall * (top - bottom)
    heights = within(spread([ruler.value for ruler in shown], gap), bottom + gap, top - gap / 2, gap)
    for ruler, height in zip(shown, heights, strict=True):
        axes.annotate(
            f"{ruler.label} {formatting.decimals(ruler.value)}",
            (max(ruler.seconds, FREE), ruler.value),
            xytext=(max(ruler.seconds, FREE) * 1.35, height),
            va="center",
            fontsize=8.5,
            color=INK if ruler.front else GREY,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.4},
        )
    return figure


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Heights for labels of descending values, at least `gap` apart and centred on where they belong."""
    groups: list[list[float]] = []  # of labels that touch: their values
    for value in values:
        groups.append([value])
        while len(groups) > 1 and _bottom(groups[-2], gap) - gap < _top(groups[-1], gap):
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_top(group, gap) - place * gap for group in groups for place in range(len(group))]


def within(heights: Sequence[float], bottom: float, top: float, gap: float) -> list[float]:
    """Descending heights moved between two ends, as little as keeps them `gap` apart."""
    lowered = [min(height, top - place * gap) for place, height in enumerate(heights)]
    return [max(height, bottom + place * gap) for place, height in enumerate(reversed(lowered))][::-1]


def _top(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) + gap * (len(group) - 1) / 2


def _bottom(group: Sequence[float], gap: float) -> float:
    return _top(group, gap) - gap * (len(group) - 1)

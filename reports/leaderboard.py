"""Rulers by what they cost and how well they agree with the reference: which are worth their price."""

from __future__ import annotations

import math
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
_LETTER = 0.09
"""Inches of a letter of a label, at most."""
_APART = 1.6
"""A label begins at so many times its ruler's seconds."""
_AROUND = 1.05
"""Inches of the figure's height that are not the axis's."""


@dataclass(frozen=True, kw_only=True)
class Ruler:
    """One ruler: mean compute-seconds a network, Spearman with its interval, and whether no other is as
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
    axes.set_xlabel(
        "compute-seconds a network (left edge: counted, not computed)\nblue: none as cheap is better"
    )
    axes.set_ylabel("Spearman with the reference (line: 95% interval)")
    axes.set_title("What each ruler costs, and how far it can be trusted", fontweight="bold")
    bottom, top = axes.get_ylim()
    gap = _LABEL / tall * (top - bottom)
    decades = math.log10(longest * 60 / (FREE / 1.5))
    for together in beside(shown, _LETTER * decades / wide):
        heights = within(spread([ruler.value for ruler in together], gap), bottom + gap, top - gap / 2, gap)
        for ruler, height in zip(together, heights, strict=True):
            axes.annotate(
                _text(ruler),
                (max(ruler.seconds, FREE), ruler.value),
                xytext=(max(ruler.seconds, FREE) * _APART, height),
                va="center",
                fontsize=8.5,
                color=INK if ruler.front else GREY,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8},
                arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.4, "relpos": (0.0, 0.5)},
            )
    return figure


def beside(shown: Sequence[Ruler], letter: float) -> list[list[Ruler]]:
    """The rulers in groups, in their order, whose labels stand in nobody else's columns.

    Args:
        letter: the width of one of a label's letters, in decades of seconds.
    """
    groups: list[tuple[float, list[Ruler]]] = []  # how far to the right a group reaches, and who is in it
    for ruler in sorted(shown, key=lambda ruler: ruler.seconds):
        place = math.log10(max(ruler.seconds, FREE))
        end = place + math.log10(_APART) + letter * len(_text(ruler))
        if groups and place <= groups[-1][0]:
            reach, members = groups.pop()
            groups.append((max(reach, end), [*members, ruler]))
        else:
            groups.append((end, [ruler]))
    order = {id(ruler): number for number, ruler in enumerate(shown)}
    return [sorted(members, key=lambda ruler: order[id(ruler)]) for _, members in groups]


def _text(ruler: Ruler) -> str:
    return f"{ruler.label} {formatting.decimals(ruler.value)}"


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

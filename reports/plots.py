"""The figures of a report. For each: a function that computes what is shown, and one that draws it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reports import formatting
from reports.canvas import BLUE, GREEN, GREY, INK, ORANGE, PALE_BLUE, RED, new_figure
from reports.correlation import average_ranks, usable_pairs
from reports.document import ScoreReport, SpearmanReport
from reports.savings import Savings
from reports.scores import Score
from reports.selection import curve_steps, regret_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

RASTERISE_FROM = 2_000
"""More dots than this go into an SVG as a picture: as shapes they would make a page of many megabytes."""


@dataclass(frozen=True, kw_only=True)
class AxisLabel:
    """What an axis shows, and how: in percent, or turned round where lower is better."""

    text: str
    percent: bool = False
    inverted: bool = False

    @classmethod
    def of(cls, score: Score, *, percent: bool, prefix: str = "") -> AxisLabel:
        """The axis of a score."""
        return cls(text=prefix + score.label, percent=percent, inverted=not score.higher_is_better)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Points of the scatter: recorded values, ranks (1 is best), which are picked and best."""

    x: Floats
    y: Floats
    x_ranks: Floats
    y_ranks: Floats
    picked: NDArray[np.bool_]
    best: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class TopK:
    """Best reference score among k architectures: the ruler's first, random ones, and all.

    `sign` is -1 where a lower reference score is better.
    """

    k: NDArray[np.int64]
    ruler: Floats
    random: Floats
    best: float
    sign: int

    def lost(self, recorded: Floats, *, percent: bool) -> Floats:
        """What a recorded reference score loses against the best of all; in points where it is a fraction."""
        return self.sign * (self.best - np.asarray(recorded)) * (100 if percent else 1)

    def recorded(self, lost: Floats, *, percent: bool) -> Floats:
        """The inverse of `lost`."""
        return self.best - self.sign * np.asarray(lost) / (100 if percent else 1)


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One labelled coefficient with its interval; None where there is none."""

    label: str
    value: float | None
    low: float | None
    high: float | None
    emphasised: bool = False


@dataclass(frozen=True, kw_only=True)
class CostBar:
    """A horizontal bar of seconds, in parts: (what, seconds, colour)."""

    label: str
    parts: tuple[tuple[str, float, str], ...]


def agreement_data(x: ArrayLike, y: ArrayLike, *, signs: tuple[int, int]) -> Agreement:
    """From oriented scores of ruler and reference; signs (1 or -1) turn them back into recorded values."""
    first, second = usable_pairs(x, y)
    return Agreement(
        x=first * signs[0],
        y=second * signs[1],
        x_ranks=average_ranks(-first),
        y_ranks=average_ranks(-second),
        picked=first == first.max(),
        best=second == second.max(),
    )


def draw_agreement(data: Agreement, spearman: SpearmanReport, x: AxisLabel, y: AxisLabel) -> Figure:
    """Values on the left, ranks on the right; the best architectures lie at the top right of both."""
    figure, (values, ranks) = new_figure(9.6, 4.6, panels=2)
    _scatter(values, data.x, data.y, data)
    _scatter(ranks, data.x_ranks, data.y_ranks, data)
    n = len(data.x)
    ranks.axline((1, 1), (n, n), color=GREY, linewidth=1, linestyle="--", zorder=1)
    for axis, label in ((values.xaxis, x), (values.yaxis, y)):
        label_axis(axis, label)
    ranks.set(xlabel=f"rank by {x.text}", ylabel=f"rank by {y.text}")
    ends = (n + 0.03 * n, 1 - 0.03 * n)
    ranks.set(xlim=ends, ylim=ends, xticks=_rank_ticks(n), yticks=_rank_ticks(n))
    figure.suptitle(_agreement_title(spearman), x=0.01, ha="left", fontsize=12, fontweight="bold")
    handles, labels = values.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def top_k_data(x: ArrayLike, y: ArrayLike, *, sign: int) -> TopK:
    """For k = 1..n; `sign` turns oriented reference scores back into recorded values. Random is exact."""
    first, second = usable_pairs(x, y)
    best, ks = float(second.max()), curve_steps(len(first))
    lost = regret_curve(first, second, [int(k) for k in ks])
    return TopK(
        k=ks,
        ruler=sign * (best - np.array(lost.ruler)),
        random=sign * (best - np.array(lost.random)),
        best=sign * best,
        sign=sign,
    )


def draw_top_k(data: TopK, y: AxisLabel) -> Figure:
    """Three lines: the ruler should reach the best of all well before picks at random do.

    The axis on the right reads the same lines as what they lose against the best of all.
    """
    figure, (axes,) = new_figure(6.2, 3.9)
    axes.axhline(data.best, color=GREY, linewidth=1.2, linestyle=":", label="best of all")
    axes.plot(data.k, data.random, color=ORANGE, linewidth=2, linestyle="--", label="k at random (expected)")
    axes.step(data.k, data.ruler, where="post", color=BLUE, linewidth=2.2, label="top k of this ranking")
    axes.set_xscale("log")
    axes.set_xticks(*_k_ticks(int(data.k[-1])))
    axes.minorticks_off()
    axes.set_xlabel(f"k: how many of the {data.k[-1]:,} are trained on real data")
    label_axis(axes.yaxis, y)
    axes.set_ylabel(f"best {y.text} among them")
    axes.set_title("How many to train for real until the best is found", fontweight="bold")
    axes.legend(loc="lower right")
    scales = (partial(data.lost, percent=y.percent), partial(data.recorded, percent=y.percent))
    losses = axes.secondary_yaxis("right", functions=scales)
    losses.set_ylabel("lost against the best of all" + " (points)" * y.percent)
    return figure


def score_bars(scores: Sequence[ScoreReport]) -> list[Bar]:
    """Spearman of every score, the default one emphasised, best first; scores without one are left out."""
    bars = [
        Bar(label=score.label, value=s.value, low=s.low, high=s.high, emphasised=position == 0)
        for position, score in enumerate(scores)
        if (s := score.spearman).value is not None
    ]
    return sorted(bars, key=lambda bar: -(bar.value or 0.0))


def draw_bars(bars: Sequence[Bar], title: str) -> Figure:
    """Horizontal bars from 0 with their intervals, the first on top."""
    # As wide as the labels take beside bars of a readable length.
    width = 6.2 + 0.08 * max(0, max(len(bar.label) for bar in bars) - 30)
    figure, (axes,) = new_figure(width, 1.5 + 0.42 * len(bars))
    for position, bar in enumerate(bars):
        value = bar.value or 0.0
        axes.barh(position, value, height=0.6, color=BLUE if bar.emphasised else PALE_BLUE)
        if bar.low is not None and bar.high is not None:
            axes.plot(
                [bar.low, bar.high], [position, position], color=INK, linewidth=1.6, solid_capstyle="butt"
            )
            axes.plot([bar.low, bar.high], [position, position], "|", color=INK, markersize=8)
        axes.annotate(
            formatting.decimals(value), (1.01, position), xycoords=("axes fraction", "data"), va="center"
        )
    axes.axvline(0, color=INK, linewidth=1)
    lows = [bar.low for bar in bars if bar.low is not None] + [bar.value or 0.0 for bar in bars]
    axes.set(xlim=(min(0.0, math.floor(min(lows) * 5) / 5), 1.0), ylim=(len(bars) - 0.5, -0.5))
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("Spearman with the reference (line: 95% interval)")
    axes.set_title(title, fontweight="bold")
    return figure


def cost_bars(savings: Savings, proxy_seconds: float, reference_seconds: float | None) -> list[CostBar]:
    """Seconds on the synthetic set beside seconds on real data; the latter only where they were measured."""
    distill = () if savings.distill_seconds is None else (("distillation", savings.distill_seconds, ORANGE),)
    bars = [CostBar(label="on the synthetic set", parts=(*distill, ("ranking by it", proxy_seconds, BLUE)))]
    if reference_seconds is not None:
        bars.append(
            CostBar(label="on real data", parts=(("training on real data", reference_seconds, GREEN),))
        )
    return bars


def draw_costs(bars: Sequence[CostBar], title: str) -> Figure:
    """Stacked horizontal bars of compute-seconds."""
    figure, (axes,) = new_figure(6.2, 2.0 + 0.5 * len(bars))
    longest = max(sum(part[1] for part in bar.parts) for bar in bars)
    for position, bar in enumerate(bars):
        left = 0.0
        for what, seconds, colour in bar.parts:
            axes.barh(position, seconds, left=left, height=0.55, color=colour, label=what)
            left += seconds
        axes.text(left + 0.012 * longest, position, formatting.seconds(left), va="center")
    axes.set(xlim=(0, longest * 1.22 or 1.0), ylim=(len(bars) - 0.5, -0.5), xlabel="compute-seconds")
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
    axes.grid(axis="y", visible=False)
    axes.set_title(title, fontweight="bold")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _scatter(axes: Axes, x: Floats, y: Floats, data: Agreement) -> None:
    plain = ~(data.picked | data.best)
    many = len(x) >= RASTERISE_FROM
    size, alpha = (6, 0.35) if many else (30, 0.75)
    axes.scatter(x[plain], y[plain], s=size, color=BLUE, alpha=alpha, linewidths=0, rasterized=many)
    axes.scatter(
        x[data.best], y[data.best], s=120, marker="*", color=GREEN, label="best in reality", zorder=3
    )
    axes.scatter(
        x[data.picked],
        y[data.picked],
        s=75,
        marker="D",
        facecolors="none",
        edgecolors=RED,
        linewidths=1.8,
        label="ranked first",
        zorder=4,
    )


def label_axis(axis: XAxis | YAxis, label: AxisLabel) -> None:
    """Name an axis, in percent or turned round as the label says."""
    from matplotlib.ticker import FuncFormatter

    axis.set_label_text(label.text)
    if label.percent:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))
    if label.inverted:
        axis.set_inverted(True)


def _agreement_title(spearman: SpearmanReport) -> str:
    n = formatting.sample(spearman.n, spearman.networks)
    if spearman.value is None:
        return f"No correlation: {spearman.reason} ({n})"
    if spearman.low is None or spearman.high is None:
        return f"Spearman {formatting.decimals(spearman.value)} ({n})"
    interval = f"{spearman.confidence:.0%} CI {formatting.interval(spearman.low, spearman.high)}"
    return f"Spearman {formatting.decimals(spearman.value)} ({interval}, {n})"


def _rank_ticks(n: int) -> list[int]:
    """1 and about five round ranks."""
    step = next(m * 10**e for e in range(9) for m in (1, 2, 5) if m * 10**e * 6 >= n)
    return [1, *(rank for rank in range(step, n + 1, step) if rank > step / 2 and rank > 1)]


def _k_ticks(n: int) -> tuple[list[int], list[str]]:
    """1, 2, 5, 10, 20, ... and n itself, leaving out what would run into n's label."""
    steps = [m * 10**e for e in range(len(str(n))) for m in (1, 2, 5)]
    ticks = [step for step in steps if step * 2.1 < n] + [n]
    return ticks, [f"{tick:,}" for tick in ticks]

"""The best network of each size: what none that costs as little scores better than (a Pareto front)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reports.canvas import BLUE, GREY, new_figure
from reports.correlation import MIN_PAIRS
from reports.document import SizeRow
from reports.plots import RASTERISE_FROM, AxisLabel, label_axis
from reports.ranking import ranking_table
from reports.runs import Run
from reports.scores import COUNTED, describe_score

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


def best_of_sizes(run: Run, score: str) -> list[SizeRow]:
    """The architectures that are best of their size by what is counted, in the order of their ranks.

    Of one network by several names the first proposed stands for all. Empty where the score is itself a size,
    or fewer than 3 networks of different sizes are ranked.
    """
    table = sized(run, score)
    fronts = {
        what: set(table.index[on_front(table[what], table["score"])]) for what in costs_of(table, score)
    }
    return [
        SizeRow(
            rank=int(row["rank"]),
            architecture=str(row["architecture"]),
            score=describe_score(score).sign * float(row["score"]),
            reference=_known(describe_score(run.reference_score).sign * float(row["reference"])),
            parameters=_known(row.get("parameters")),
            flops=_known(row.get("flops")),
            fronts=[what for what, members in fronts.items() if index in members],
        )
        for index, row in table.iterrows()
        if any(index in members for members in fronts.values())
    ]


def sized(run: Run, score: str) -> pd.DataFrame:
    """The ranked rows of `ranking_table`, best first, one a network."""
    first = run.trials.loc[~run.networks.duplicated(), "architecture"]
    table = ranking_table(run, score).dropna(subset=["rank"])
    return table[table["architecture"].isin(first)].reset_index(drop=True)


def costs_of(table: pd.DataFrame, score: str) -> list[str]:
    """By which of what is counted the networks differ."""
    if score in COUNTED or len(table) < MIN_PAIRS:
        return []
    return [what for what in COUNTED if what in table and table[what].nunique() > 1]


def on_front(costs: pd.Series, scores: pd.Series) -> NDArray[np.bool_]:
    """Where no other has a better score at no greater cost, or as good a one at a smaller; unknown: nowhere.

    Args:
        costs, scores: (n,), lower and higher is better.
    """
    import pandas as pd

    frame = pd.DataFrame({"cost": costs, "score": scores}).dropna()
    best = frame.groupby("cost")["score"].max()  # sorted by cost
    front = best[best > best.cummax().shift(fill_value=float("-inf"))]
    wins = frame["score"].eq(frame["cost"].map(front))
    found: NDArray[np.bool_] = wins.reindex(costs.index, fill_value=False).to_numpy(dtype=bool)
    return found


def draw(table: pd.DataFrame, what: Sequence[str], score: str, y: AxisLabel) -> Figure:
    """The score over each cost, on a logarithmic axis; the front is joined by steps."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    figure, panels = new_figure(4.8 * len(what), 4.2, panels=len(what))
    values = describe_score(score).sign * table["score"]
    many = len(table) >= RASTERISE_FROM
    size, alpha = (6, 0.35) if many else (26, 0.6)
    for axes, cost in zip(panels, what, strict=True):
        front = on_front(table[cost], table["score"])
        rest = ~front
        axes.scatter(
            table.loc[rest, cost],
            values[rest],
            s=size,
            color=GREY,
            alpha=alpha,
            linewidths=0,
            rasterized=many,
        )
        best = table.assign(value=values)[front].sort_values(cost)
        axes.plot(
            best[cost], best["value"], "o-", color=BLUE, markersize=6, linewidth=1.2, drawstyle="steps-post"
        )
        axes.hlines(best["value"].iloc[-1], best[cost].iloc[-1], table[cost].max(), color=BLUE, linewidth=1.2)
        if (table[cost] > 0).all():
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel(describe_score(cost).label)
        label_axis(axes.yaxis, y)
    title = "The best for its size (blue: none as small has a better score)"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    return figure


def _known(value: float | None) -> float | None:
    return None if value is None or value != value else float(value)

"""One run as pages show it: its report, its ranking and its figures, drawn to files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reports import formatting, leaderboard, plots, sizes
from reports.analysis import reference_is_fraction
from reports.canvas import copy_picture, save_figure
from reports.document import Report
from reports.ranking import ranking_table, reference_scores, ruler_scores
from reports.runs import Run
from reports.scores import HALVING, Score, describe_score
from reports.weights import weights_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


SHOWN = 10
"""Rows of the ranking on a page; its file holds all."""
SIZES_SHOWN = 20
"""Rows of the best for their size; report.json holds all."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A drawn figure: `file` without suffix, below the report's folder, and the words that stand for it."""

    file: str
    suffix: str
    title: str
    alt: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """One row of the ranking; scores and reference as recorded, a loss not turned round, a dash if unknown.

    `beside` are the values of `Section.beside`.
    """

    rank: int
    architecture: str
    score: str
    beside: tuple[str, ...]
    reference: str


@dataclass(frozen=True, kw_only=True)
class Size:
    """One of the best for their size, and by what; scores as `Place` has them."""

    rank: int
    architecture: str
    score: str
    reference: str
    parameters: str
    flops: str
    fronts: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """Everything a page says about one run; `ranking_file` holds its ranking, beside the page.

    `folder` is the run's own, as it was given, and on no page; `sizes_picture` shows where the best for their
    size lie.
    """

    folder: Path
    label: str
    report: Report
    ranking: pd.DataFrame
    ranking_file: str
    pictures: tuple[Picture, ...]
    sizes_picture: Picture | None
    score: Score
    reference: Score
    fraction: bool

    @property
    def beside(self) -> dict[str, Score]:
        """Scores that explain the one that ranks: of a place by rung the epochs, and what was compared."""
        if self.report.score != HALVING:
            return {}
        strategy = self.report.run.strategy
        first = next(iter(weights_of(strategy.combined)), strategy.criterion or "")
        names = ("trained_epochs", first)
        return {name: describe_score(name) for name in names if name in self.ranking.columns}

    def sizes(self) -> list[Size]:
        """The first of the best for their size, as people read them."""
        return [
            Size(
                rank=row.rank,
                architecture=row.architecture,
                score=formatting.score_value(row.score, fraction=self.score.fraction),
                reference=formatting.UNKNOWN
                if row.reference is None
                else formatting.score_value(row.reference, fraction=self.fraction),
                parameters=formatting.count(row.parameters),
                flops=formatting.count(row.flops),
                fronts="both" if len(row.fronts) > 1 else describe_score(row.fronts[0]).label,
            )
            for row in self.report.sizes[:SIZES_SHOWN]
        ]

    def places(self) -> list[Place]:
        """The first rows of the ranking, as people read them."""
        ranked = self.ranking.dropna(subset="rank").head(SHOWN)
        return [
            Place(
                rank=int(row["rank"]),
                architecture=str(row["architecture"]),
                score=_shown(row["score"], self.score, fraction=self.score.fraction),
                beside=tuple(
                    formatting.score_value(row[name], fraction=score.fraction)
                    for name, score in self.beside.items()
                ),
                reference=_shown(row["reference"], self.reference, fraction=self.fraction),
            )
            for row in ranked.to_dict("records")
        ]


def make_section(run: Run, report: Report, label: str, figures: Path, prefix: str = "") -> Section:
    """Draws a run's figures into `figures` and gathers what pages say of it.

    `prefix` begins the names of the run's files where several runs share a folder.
    """

    def drawn(name: str, title: str, alt: str, figure: Figure) -> Picture:
        save_figure(figure, figures, prefix + name)
        return Picture(file=f"{figures.name}/{prefix}{name}", suffix=".svg", title=title, alt=alt)

    pictures = [drawn(*each) for each in _figures(run, report)]
    return Section(
        folder=run.folder,
        label=label,
        report=report,
        ranking=ranking_table(run, report.score),
        ranking_file=f"{prefix}ranking.csv",
        pictures=(*pictures, *_copy_images(run, figures, prefix)),
        sizes_picture=drawn(*_sizes(run, report)) if report.sizes else None,
        score=describe_score(report.score),
        reference=describe_score(run.reference_score),
        fraction=reference_is_fraction(run, reference_scores(run)),
    )


def _shown(oriented: float, score: Score, *, fraction: bool) -> str:
    return formatting.score_value(score.sign * float(oriented), fraction=fraction)


def _figures(run: Run, report: Report) -> Iterator[tuple[str, str, str, Figure]]:
    """Name, title, text alternative and drawing of every figure this run has data for."""
    if report.default.pick is not None:
        yield _agreement(run, report)
        yield _top_k(run, report)
    yield _costs(report)
    compared = leaderboard.rulers(report.scores)
    if len({ruler.seconds for ruler in compared}) > 1:
        figure = leaderboard.draw(compared, report.savings.reference_seconds_each)
        values = ", ".join(
            f"{ruler.label} {formatting.decimals(ruler.value)} for {formatting.seconds(ruler.seconds)}"
            for ruler in compared
        )
        yield "leaderboard", "What each ruler costs", f"Spearman's rho by cost: {values}.", figure
    bars = plots.score_bars(report.scores)
    if bars:
        figure = plots.draw_bars(bars, "What else could rank them")
        values = ", ".join(f"{bar.label} {formatting.decimals(bar.value)}" for bar in bars)
        yield "scores", "Every recorded score as the ruler", f"Bar chart of Spearman's rho: {values}.", figure


def _agreement(run: Run, report: Report) -> tuple[str, str, str, Figure]:
    x, y = ruler_scores(run, report.score), reference_scores(run)
    score, reference = describe_score(report.score), describe_score(run.reference_score)
    data = plots.agreement_data(x, y, signs=(score.sign, reference.sign))
    x_label = plots.AxisLabel.of(score, percent=score.fraction, prefix="proxy ")
    y_label = plots.AxisLabel.of(reference, percent=reference_is_fraction(run, y), prefix="real ")
    spearman = report.default.spearman
    alt = (
        f"Two scatter plots of {formatting.plural(spearman.n, 'architecture')}, {x_label.text} against "
        f"{y_label.text}, as values and as ranks; Spearman {formatting.decimals(spearman.value)}."
    )
    return "agreement", "Proxy against reality", alt, plots.draw_agreement(data, spearman, x_label, y_label)


def _top_k(run: Run, report: Report) -> tuple[str, str, str, Figure]:
    x, y = ruler_scores(run, report.score), reference_scores(run)
    reference = describe_score(run.reference_score)
    data = plots.top_k_data(x, y, sign=reference.sign)
    label = plots.AxisLabel.of(reference, percent=reference_is_fraction(run, y), prefix="real ")
    alt = (
        f"Curve of the best {label.text} among the top k of the ranking, k from 1 to {data.k[-1]}, beside "
        "what k architectures at random are expected to reach and the best of all."
    )
    return "top_k", "What training the top k finds", alt, plots.draw_top_k(data, label)


def _sizes(run: Run, report: Report) -> tuple[str, str, str, Figure]:
    table, score = sizes.sized(run, report.score), describe_score(report.score)
    costs = sizes.costs_of(table, report.score)
    labels = " and ".join(describe_score(cost).label for cost in costs)
    alt = (
        f"{formatting.plural(len(table), 'network')}, {score.label} over {labels}; "
        f"{formatting.plural(len(report.sizes), 'of them is', 'of them are')} the best for the size."
    )
    y = plots.AxisLabel.of(score, percent=score.fraction, prefix="proxy ")
    return "sizes", "The best for its size", alt, sizes.draw(table, costs, report.score, y)


def _costs(report: Report) -> tuple[str, str, str, Figure]:
    savings = report.savings
    if savings.proxy_seconds_each is not None and savings.reference_seconds_each is not None:
        proxy, reference = (
            savings.pairs * each for each in (savings.proxy_seconds_each, savings.reference_seconds_each)
        )
        title = f"{formatting.plural(savings.pairs, 'network')}, measured both ways"
    else:
        proxy, reference = savings.proxy_seconds, None
        title = formatting.plural(savings.proxy_trials, "architecture")
    bars = plots.cost_bars(savings, proxy, reference)
    words = ", ".join(f"{what} {formatting.seconds(value)}" for bar in bars for what, value, _ in bar.parts)
    return "savings", "What it cost", f"Bars of compute-seconds: {words}.", plots.draw_costs(bars, title)


def _copy_images(run: Run, figures: Path, prefix: str) -> Iterator[Picture]:
    name = f"{prefix}synthetic"
    if not copy_picture(run.folder / "synthetic.png", figures / f"{name}.png"):
        return
    synthetic = run.info.synthetic
    alt = f"The {synthetic.images or ''} synthetic images made by {synthetic.method}, one row a class."
    file = f"{figures.name}/{name}"
    yield Picture(file=file, suffix=".png", title="The synthetic images", alt=" ".join(alt.split()))

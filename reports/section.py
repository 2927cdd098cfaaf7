"""One run as pages show it: its report, its ranking and its figures, drawn to files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from reports import formatting, plots
from reports.analysis import reference_is_fraction
from reports.canvas import save_figure
from reports.document import Report
from reports.ranking import ranking_table, reference_scores, ruler_scores
from reports.schema import Run
from reports.scores import Score, describe_score

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A drawn figure: `file` without suffix, below the report's folder, and the words that stand for it."""

    file: str
    suffix: str
    title: str
    alt: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """Everything a page says about one run."""

    label: str
    report: Report
    ranking: pd.DataFrame
    pictures: tuple[Picture, ...]
    score: Score
    reference: Score
    fraction: bool


def make_section(run: Run, report: Report, label: str, figures: Path) -> Section:
    """Draws a run's figures into `figures` and gathers what pages say of it."""
    pictures = []
    for name, title, alt, figure in _figures(run, report):
        save_figure(figure, figures, name)
        pictures.append(Picture(file=f"{figures.name}/{name}", suffix=".svg", title=title, alt=alt))
    return Section(
        label=label,
        report=report,
        ranking=ranking_table(run, report.score),
        pictures=(*pictures, *_copy_images(run, figures)),
        score=describe_score(report.score),
        reference=describe_score(run.reference_score),
        fraction=reference_is_fraction(run, reference_scores(run)),
    )


def borrow_section(section: Section, label: str, folder: Path, figures: Path, prefix: str) -> Section:
    """A section whose report is already written in `folder`, with its pictures copied into `figures`."""
    pictures = []
    for picture in section.pictures:
        name = prefix + Path(picture.file).name
        for suffix in {".png", picture.suffix}:
            shutil.copyfile(folder / f"{picture.file}{suffix}", figures / f"{name}{suffix}")
        pictures.append(replace(picture, file=f"{figures.name}/{name}"))
    return replace(section, label=label, pictures=tuple(pictures))


def _figures(run: Run, report: Report) -> Iterator[tuple[str, str, str, Figure]]:
    """Name, title, text alternative and drawing of every figure this run has data for."""
    if report.default.pick is not None:
        yield _agreement(run, report)
        yield _top_k(run, report)
    yield _costs(report)
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
        f"Two scatter plots of {spearman.n} architectures, {x_label.text} against {y_label.text}, as values "
        f"and as ranks; Spearman {formatting.decimals(spearman.value)}."
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


def _costs(report: Report) -> tuple[str, str, str, Figure]:
    savings = report.savings
    if savings.proxy_seconds_each is not None and savings.reference_seconds_each is not None:
        proxy, reference = (
            savings.pairs * each for each in (savings.proxy_seconds_each, savings.reference_seconds_each)
        )
        title = f"{savings.pairs} architectures, measured both ways"
    else:
        proxy, reference = savings.proxy_seconds, None
        title = f"{savings.proxy_trials} architectures"
    bars = plots.cost_bars(savings, proxy, reference)
    words = ", ".join(f"{what} {formatting.seconds(value)}" for bar in bars for what, value, _ in bar.parts)
    return "savings", "What it cost", f"Bars of compute-seconds: {words}.", plots.draw_costs(bars, title)


def _copy_images(run: Run, figures: Path) -> Iterator[Picture]:
    source = run.folder / "synthetic.png"
    if not source.is_file():
        return
    shutil.copyfile(source, figures / "synthetic.png")
    synthetic = run.info.synthetic
    alt = f"The {synthetic.images or ''} synthetic images made by {synthetic.method}, one row a class."
    file = f"{figures.name}/synthetic"
    yield Picture(file=file, suffix=".png", title="The synthetic images", alt=" ".join(alt.split()))

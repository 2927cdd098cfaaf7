"""A report in a few lines for the terminal; the page has the rest."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from atom_nas.console import stdout, table
from reports.formatting import decimals, interval, seconds

if TYPE_CHECKING:
    from reports.document import Report, ScoreReport
    from reports.writing import WrittenReport

_BEST = 10


def show_essence(written: "WrittenReport") -> None:
    """Print the best architectures of one run, or each run's agreement, and the verdicts."""
    if len(written.reports) == 1:
        _show_ranking(written.folder / "ranking.csv")
        _show_scores(written.report)
    else:
        _show_runs(written.reports)
    for report in written.reports:
        name = f"{report.run.name}: " if len(written.reports) > 1 else ""
        stdout.print(f"{name}{report.verdict.sentence}", markup=False)


def _show_ranking(path: Path) -> None:
    with path.open(newline="") as file:
        best = [row for row in csv.DictReader(file) if row["rank"]][:_BEST]
    rows = [
        [row["rank"], row["architecture"], _short(row["score"]), _short(row["reference"])] for row in best
    ]
    table(f"The best {len(best)}", ["rank", "architecture", "score (higher is better)", "reference"], rows)


def _short(number: str) -> str:
    if not number:
        return "-"
    value = float(number)
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}"


def _show_scores(report: "Report") -> None:
    if report.reference_score is None:
        return
    rows = [[score.label, *_agreement(score)] for score in report.scores]
    table(
        "Agreement with the reference ranking",
        ["score", "Spearman", "95% interval", "n", "top 20% (n)"],
        rows,
    )
    saved = report.savings
    spent = f"distilling {seconds(saved.distill_seconds)}, proxy {seconds(saved.proxy_seconds)}"
    stdout.print(f"compute: {spent}, reference {seconds(saved.reference_seconds)}", markup=False)


def _agreement(score: "ScoreReport") -> list[str]:
    found = score.spearman
    between = interval(found.low, found.high) if found.low is not None and found.high is not None else "-"
    top = score.spearman_top_20
    return [decimals(found.value), between, str(found.n), f"{decimals(top.value)} ({top.n})"]


def _show_runs(reports: "tuple[Report, ...]") -> None:
    rows = [
        [report.run.name, report.run.synthetic.method or "-", *_agreement(report.default)]
        for report in reports
    ]
    table(
        "Agreement with the reference ranking",
        ["run", "method", "Spearman", "95% interval", "n", "top 20% (n)"],
        rows,
    )

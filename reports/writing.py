"""Writes the report of one run, or of several side by side, so that no reader ever sees half a file."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reports.analysis import analyse
from reports.canvas import house_style, save_figure
from reports.comparison import compare_runs
from reports.document import ComparisonRow, Report
from reports.page import render_html, render_markdown
from reports.plots import Bar, draw_bars
from reports.schema import Run, read_run
from reports.section import Picture, Section, borrow_section, make_section

FIGURES = "figures"


@dataclass(frozen=True, kw_only=True)
class WrittenReport:
    """What was written: the page to open, and every run's report in the order given."""

    folder: Path
    page: Path
    reports: tuple[Report, ...]

    @property
    def report(self) -> Report:
        """The (first) run's report."""
        return self.reports[0]


def write_report(
    run_dirs: Path | str | Sequence[Path | str], *, score: str | None = None, out: Path | str | None = None
) -> WrittenReport:
    """Writes RUN/report/ for every run, and one that shows several side by side.

    Args:
        run_dirs: a run folder, or several.
        score: the score to rank by, instead of each run's own default.
        out: the folder of the one run's report, or of the pages that show several; the first run's report/ if
            None.
    Raises:
        ValueError: if a folder is no readable run, is given twice, or lacks the score.
        OSError: if a folder cannot be written to; what was there before is then left as it was.
    """
    folders = [Path(run_dirs)] if isinstance(run_dirs, (str, Path)) else [Path(folder) for folder in run_dirs]
    _check_distinct(folders)
    runs = [read_run(folder) for folder in folders]
    reports = [analyse(run, score=score) for run in runs]
    folder = _report_folder(runs[0]) if out is None else _usable(Path(out))
    with house_style():
        if len(runs) == 1:
            _write_single(runs[0], reports[0], folder)
        else:
            reports[0] = _write_combined(runs, reports, folder)
    return WrittenReport(folder=folder, page=folder / "index.html", reports=tuple(reports))


def _write_single(run: Run, report: Report, target: Path) -> Section:
    with _staging(target) as folder:
        section = make_section(run, report, run.name, folder / FIGURES)
        _write_files(folder, report, [section], [], None)
        _publish(folder, target)
    return section


def _write_combined(runs: Sequence[Run], reports: Sequence[Report], target: Path) -> Report:
    """Every other run's own report first, then the pages of all; returns the first one's report."""
    others = [
        _write_single(run, report, _report_folder(run))
        for run, report in zip(runs[1:], reports[1:], strict=True)
    ]
    labels = run_labels(runs)
    rows = compare_runs(runs, reports, labels)
    first = reports[0].model_copy(update={"comparison": rows})
    with _staging(target) as folder:
        sections = [make_section(runs[0], first, labels[0], folder / FIGURES)]
        for position, section in enumerate(others, start=1):
            prefix = f"{position + 1}-{re.sub(r'[^A-Za-z0-9._-]+', '-', labels[position])}-"
            home = _report_folder(runs[position])
            sections.append(borrow_section(section, labels[position], home, folder / FIGURES, prefix))
        chart = _draw_comparison(rows, folder / FIGURES)
        _write_files(folder, first, sections, rows, chart)
        _publish(folder, target)
    return first


def _report_folder(run: Run) -> Path:
    return run.folder / "report"


def run_labels(runs: Sequence[Run]) -> list[str]:
    """What to call the runs: their folders' names, with the parent's where two are the same."""
    names = Counter(run.name for run in runs)
    return [run.name if names[run.name] == 1 else "/".join(run.folder.resolve().parts[-2:]) for run in runs]


def _draw_comparison(rows: Sequence[ComparisonRow], figures: Path) -> Picture | None:
    bars = [
        Bar(
            label=row.name,
            value=row.spearman.value,
            low=row.spearman.low,
            high=row.spearman.high,
            emphasised=True,
        )
        for row in rows
        if row.spearman.value is not None
    ]
    if not bars:
        return None
    save_figure(draw_bars(bars, "Agreement of each run with its reference"), figures, "comparison")
    alt = "Bar chart of Spearman's rho: " + ", ".join(f"{bar.label} {bar.value:.2f}" for bar in bars) + "."
    return Picture(file=f"{FIGURES}/comparison", suffix=".svg", title="Runs side by side", alt=alt)


def _write_files(
    folder: Path,
    report: Report,
    sections: Sequence[Section],
    rows: Sequence[ComparisonRow],
    chart: Picture | None,
) -> None:
    files = {
        "index.html": render_html(sections, rows, chart, folder),
        "report.md": render_markdown(sections, rows, chart),
        "report.json": report.model_dump_json(indent=2) + "\n",
        "ranking.csv": sections[0].ranking.to_csv(index=False, lineterminator="\n"),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A temporary folder beside the report, so on the same disk: finished files are moved into place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".report-") as name:
        (Path(name) / FIGURES).mkdir()
        yield Path(name)


def _usable(out: Path) -> Path:
    """A folder that is new, empty or holds a report."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: name a folder for the report")
    if out.is_dir() and any(out.iterdir()) and not (out / "report.json").is_file():
        raise ValueError(f"{out} is not empty and holds no report: name another folder")
    return out


def _check_distinct(folders: Sequence[Path]) -> None:
    if not folders:
        raise ValueError("no run to report on: give at least one run folder")
    for folder, count in Counter(folder.resolve() for folder in folders).items():
        if count > 1:
            raise ValueError(f"run {folder.name} is given {count} times: give each run folder once")


def _publish(staged: Path, target: Path) -> None:
    """Moves the finished files into place, then drops figures of an earlier report that were not redrawn."""
    (target / FIGURES).mkdir(parents=True, exist_ok=True)
    files = sorted(path.relative_to(staged) for path in staged.rglob("*") if path.is_file())
    for file in files:
        (staged / file).replace(target / file)
    for figure in (target / FIGURES).iterdir():
        if figure.suffix in {".png", ".svg"} and figure.relative_to(target) not in files:
            figure.unlink()

"""Writes the report of one run, or of several side by side, so that no reader ever sees half a file."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reports import formatting
from reports.analysis import analyse
from reports.canvas import house_style, save_figure
from reports.combinations import combine as with_combinations
from reports.comparison import compare_runs
from reports.document import ComparisonRow, Report
from reports.noise import measure_noise
from reports.page import render_html, render_markdown
from reports.plots import Bar, draw_bars
from reports.ranking import ranking_csv
from reports.runs import Run, read_run
from reports.scores import MEAN_OF_RANKS
from reports.section import Picture, Section, make_section

FIGURES = "figures"
STAGING_PREFIX = ".report-"
LONGEST_LABEL = 80
"""Letters of a run's label, its last ones, in the names of files; file systems allow 255 in all."""
OTHER_RANKING = re.compile(r"\d+-[A-Za-z0-9._-]*-ranking\.csv")
"""The rankings of every run but the first."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class WrittenReport:
    """What was written: the page to open, and what it says of every run, in the order given."""

    folder: Path
    page: Path
    sections: tuple[Section, ...]

    @property
    def reports(self) -> tuple[Report, ...]:
        """Every run's report."""
        return tuple(section.report for section in self.sections)

    @property
    def labels(self) -> tuple[str, ...]:
        """What the page calls the runs: see `run_labels`."""
        return tuple(section.label for section in self.sections)

    @property
    def report(self) -> Report:
        """The (first) run's report."""
        return self.reports[0]

    def __repr__(self) -> str:
        """One line: the page, and each run's verdict in a word or two."""
        levels = {section.label: section.report.verdict.level for section in self.sections}
        return f"WrittenReport(page={str(self.page)!r}, verdicts={levels!r})"


def write_report(
    run_dirs: Path | str | Sequence[Path | str],
    *,
    score: str | None = None,
    out: Path | str | None = None,
    combine: Sequence[str] | None = None,
) -> WrittenReport:
    """Writes the report of one run, or one that shows several side by side, into one folder.

    That folder is `out`; or the run's report/, of several runs the first one's comparison/. Nothing else is
    written to: the runs' own reports stay as they are, and folders of all but the first may be read-only.

    Args:
        run_dirs: a run folder, or several.
        score: the score to rank by, instead of each run's own default.
        out: the folder of the report; see above if None.
        combine: the scores to combine to further rulers; () for none, None for a default, see
            `reports.combinations.combine`.
    Raises:
        ValueError: if a folder is no readable run, is given twice, or lacks a score.
        OSError: if the folder cannot be written to; what was there before is then left as it was.
    """
    folders = [Path(run_dirs)] if isinstance(run_dirs, (str, Path)) else [Path(folder) for folder in run_dirs]
    _check_distinct(folders)
    runs = [with_combinations(read_run(folder), combine) for folder in folders]
    if score is None and combine is not None and not combine:
        _check_ranked_alone(runs)
    reports = [analyse(run, score=score) for run in runs]
    own = "report" if len(runs) == 1 else "comparison"
    target = _own_folder(runs[0], own) if out is None else _usable(Path(out))
    with house_style(), _staging(target) as folder:
        sections = _write_files(folder, runs, reports)
        _publish(folder, target)
    return WrittenReport(folder=target, page=target / "index.html", sections=tuple(sections))


def _check_ranked_alone(runs: Sequence[Run]) -> None:
    """Without combinations there is no ranking of a run that ranks by one."""
    for run in runs:
        if run.info.score == MEAN_OF_RANKS:
            raise ValueError(
                f"run {run.name} ranks by the mean of ranks of several scores: combine some, or rank by one "
                "of them (--score NAME)"
            )


def _own_folder(run: Run, name: str) -> Path:
    """RUN/name, which must not lead out of the run folder: a stranger's could replace files elsewhere."""
    folder = run.folder / name
    if folder.is_symlink():
        raise ValueError(f"{folder} is a link: remove it, or name the report's folder with --out")
    return folder if name == "report" else _usable(folder)


def run_labels(runs: Sequence[Run]) -> list[str]:
    """What to call the runs: their folders' names, with as many parents as it takes to tell them apart."""
    parts = [run.folder.resolve().parts for run in runs]
    depths = [1] * len(runs)
    while True:
        labels = [Path(*path[-depth:]).as_posix() for path, depth in zip(parts, depths, strict=True)]
        counts = Counter(labels)
        longer = [
            min(len(path), depth + 1) if counts[label] > 1 else depth
            for path, depth, label in zip(parts, depths, labels, strict=True)
        ]
        if longer == depths:
            return labels
        depths = longer


def _prefixes(labels: Sequence[str]) -> list[str]:
    """What the names of each run's files begin with: nothing for the first, `2-LABEL-` for the second."""
    words = [re.sub(r"[^A-Za-z0-9._-]+", "-", label)[-LONGEST_LABEL:] for label in labels]
    return ["", *(f"{position}-{word}-" for position, word in enumerate(words[1:], start=2))]


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
    values = ", ".join(f"{bar.label} {formatting.decimals(bar.value)}" for bar in bars)
    alt = f"Bar chart of Spearman's rho: {values}."
    return Picture(file=f"{FIGURES}/comparison", suffix=".svg", title="Runs side by side", alt=alt)


def _write_files(folder: Path, runs: Sequence[Run], reports: Sequence[Report]) -> list[Section]:
    """Fills `folder` with the pages, the numbers, and every run's figures and ranking."""
    figures, labels = folder / FIGURES, run_labels(runs)
    rows = compare_runs(runs, reports, labels) if len(runs) > 1 else []
    noise = measure_noise(runs, reports, labels) if len(runs) > 1 else []
    first = reports[0].model_copy(update={"comparison": rows or None, "noise": noise or None})
    sections = [
        make_section(run, report, label, figures, prefix)
        for run, report, label, prefix in zip(
            runs, (first, *reports[1:]), labels, _prefixes(labels), strict=True
        )
    ]
    chart = _draw_comparison(rows, figures)
    files = {
        "index.html": render_html(sections, rows, chart, folder),
        "report.md": render_markdown(sections, rows, chart),
        "report.json": first.model_dump_json(indent=2) + "\n",
        **{section.ranking_file: ranking_csv(section.ranking) for section in sections},
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return sections


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A temporary folder in the report's, so on the same disk: finished files are moved into place."""
    if (target / FIGURES).is_symlink():
        raise ValueError(f"{target / FIGURES} is a link: remove it, figures are replaced only in the report")
    new = not target.exists()
    target.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=target, prefix=STAGING_PREFIX) as name:
            (Path(name) / FIGURES).mkdir()
            yield Path(name)
    finally:
        if new and not any(target.iterdir()):
            target.rmdir()


def _usable(out: Path) -> Path:
    """A folder that is new, holds a report, or is empty but for what a killed attempt left."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: name a folder for the report")
    held = [path.name for path in out.iterdir()] if out.is_dir() else []
    if "report.json" not in held and not all(name.startswith(STAGING_PREFIX) for name in held):
        raise ValueError(f"{out} is not empty and holds no report: name another folder")
    return out


def _check_distinct(folders: Sequence[Path]) -> None:
    if not folders:
        raise ValueError("no run to report on: give at least one run folder")
    for folder, count in Counter(folder.resolve() for folder in folders).items():
        if count > 1:
            raise ValueError(f"run {folder.name} is given {count} times: give each run folder once")


def _publish(staged: Path, target: Path) -> None:
    """Moves the finished files into place, then drops what an earlier report had and this one does not."""
    (target / FIGURES).mkdir(exist_ok=True)
    files = sorted(path.relative_to(staged) for path in staged.rglob("*") if path.is_file())
    for file in files:
        (staged / file).replace(target / file)
    figures = [path for path in (target / FIGURES).iterdir() if path.suffix in {".png", ".svg"}]
    rankings = [path for path in target.iterdir() if OTHER_RANKING.fullmatch(path.name)]
    for path in (*figures, *rankings):
        if path.relative_to(target) not in files:
            path.unlink()

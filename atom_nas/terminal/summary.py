"""A report in a few lines for the terminal, of which the page has the rest; and what to expect of one."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from atom_nas.names import harmless
from atom_nas.terminal.console import shortened, stdout, table
from reports import planning
from reports.confirmed import how_to_load
from reports.formatting import UNKNOWN, accuracy, accuracy_of, by_count, decimals, interval, plural, seconds

if TYPE_CHECKING:
    from reports.document import Report, ScoreReport
    from reports.section import Section
    from reports.writing import WrittenReport


_NARROW = 0.05
"""Below this width two decimals of its ends say too little of an interval."""


def show_essence(written: "WrittenReport") -> None:
    """Print the best architectures of one run, or each run's agreement, and the verdicts."""
    from reports.comparison import describe_tasks
    from reports.words import BALANCED

    if len(written.sections) == 1:
        if written.report.run.dataset.balanced_images:
            stdout.print(BALANCED)
        _show_ranking(written.sections[0])
        _show_scores(written.report)
        _show_costs(written.report)
        _show_confirmed(written.sections[0])
    else:
        _show_runs(written.sections)
        if tasks := describe_tasks(written.report.comparison or ()):
            stdout.print(tasks, markup=False)
    for label, report in zip(written.labels, written.reports, strict=True):
        name = f"{label}: " if len(written.sections) > 1 else ""
        for line in (
            _unfinished(report),
            _failed_references(report),
            report.verdict.sentence,
            *report.cautions,
        ):
            if line:
                stdout.print(f"{name}{line}", markup=False)


def show_plan(
    width: float | None,
    samples: int | None,
    correlations: Sequence[float] | None,
    confidence: float,
    agreement: float | None,
    *,
    as_json: bool,
) -> None:
    """Print how many architectures an interval takes, or what interval a number of them gives."""
    rows = planning.plan(
        width=width, samples=samples, correlations=correlations, confidence=confidence, agreement=agreement
    )
    assumed = [planning.ASSUMPTIONS] if agreement is None else [planning.OF_SEEDS, planning.ASSUMPTIONS]
    if as_json:
        record = {"confidence": confidence, "assumptions": " ".join(assumed), "width": width}
        shown = [{**asdict(row), "trainings": row.trainings} for row in rows]
        stdout.print_json(json.dumps({**record, "agreement": agreement, "rows": shown}))
        return
    wished = f" at most {width:g} wide" if width is not None else ""
    title = f"{100 * confidence:g}% interval of Spearman's rho{wished}"
    if agreement is None:
        own = [[f"{row.samples:,}", _planned(row), decimals(row.width, 3)] for row in rows]
        header = ["true correlation", "architectures", "interval", "width"]
        table(title, header, [[f"{row.correlation:g}", *cells] for row, cells in zip(rows, own, strict=True)])
    else:
        if width is not None:
            title = f"Architectures for a {title}, and their true correlation"
        table(f"{title}, by trainings of each architecture", *_by_seeds(rows, intervals=width is None))
    for line in assumed:
        stdout.print(line, markup=False)


def _by_seeds(rows: Sequence[planning.Expected], *, intervals: bool) -> tuple[list[str], list[list[str]]]:
    """Correlations by one training downwards, numbers of trainings to the right."""
    cells = {
        (row.by_one, row.seeds): _planned(row) if intervals else f"{row.samples:,} ({row.correlation:.2f})"
        for row in rows
    }
    header = ["by one training", *(f"{seeds} each" for seeds in planning.SEEDS)]
    downwards = dict.fromkeys(row.by_one for row in rows)
    return header, [
        [f"{by_one:g}", *(cells.get((by_one, seeds), UNKNOWN) for seeds in planning.SEEDS)]
        for by_one in downwards
    ]


def _planned(row: planning.Expected) -> str:
    return interval(row.low, row.high, 2 if row.width >= _NARROW else 3)


def _show_ranking(section: "Section") -> None:
    places, report = section.places(), section.report
    if not places:
        return
    header = ["rank", "architecture", *(each.label for each in (section.score, *section.beside.values()))]
    rows = [[str(place.rank), shortened(place.architecture), place.score, *place.beside] for place in places]
    if report.reference_score is not None:
        header.append(f"reference: {section.reference.label}")
        rows = [[*row, place.reference] for row, place in zip(rows, places, strict=True)]
    best = f"The best {len(places)} of {report.counts.ranked:,}"
    table(best if report.counts.ranked > len(places) else "The ranking", header, rows)


def _show_scores(report: "Report") -> None:
    if report.reference_score is None or all(score.spearman.value is None for score in report.scores):
        return
    rows = [[score.label, *_agreement(score)] for score in report.scores]
    table(
        "Agreement with the reference ranking",
        ["score", "Spearman", "95% interval", "n", "best 20% (n)"],
        rows,
    )


def _show_costs(report: "Report") -> None:
    """What was paid, whether or not there is something to compare it with."""
    saved = report.savings
    spent = f"{' and '.join(report.ranked_by)} {seconds(saved.proxy_seconds)}"
    spent = f"distilling {seconds(saved.distill_seconds)}, {spent}" if saved.distill_seconds != 0 else spent
    reference = "" if saved.reference_seconds is None else f", reference {seconds(saved.reference_seconds)}"
    stdout.print(f"{report.compute_unit}: {spent}{reference}", markup=False)


def _agreement(score: "ScoreReport") -> list[str]:
    found, top = score.spearman, score.spearman_top_20
    between = interval(found.low, found.high)
    return [decimals(found.value), between, str(found.n), f"{decimals(top.value)} ({top.n})"]


def _show_confirmed(section: "Section") -> None:
    confirmed = section.report.confirmed
    if confirmed is None:
        return
    rows = [
        [
            str(row.rank or UNKNOWN),
            shortened(row.architecture),
            str(row.proxy_rank or UNKNOWN),
            accuracy(row.validation_accuracy),
            accuracy(row.test_accuracy),
            shortened(harmless(accuracy_of(row.lowest_class))),
        ]
        for row in confirmed.rows
    ]
    header = ["rank", "architecture", "by proxy", "validation", "test", "lowest class"]
    table("Confirmed on real data", header, rows)
    for row in confirmed.rows:
        if not row.weights:
            stdout.print(f"without weights: {row.architecture} ({row.reason or 'missing'})", markup=False)
    best = next((row for row in confirmed.rows if row.load), None)
    if best and best.rank:
        whole = all(row.weights for row in confirmed.rows if row.rank)
        line = _how_to_load(section, best.rank if whole else best.architecture)
        # Names as they are: a word between colons is no emoji.
        stdout.print(f"load the best with its weights: {line}", markup=False, emoji=False)


def _how_to_load(section: "Section", which: int | str) -> str:
    """A line that works wherever Python is started: a page, which others may see, has no such paths."""
    space = section.report.run.space
    file, kind = (space.model_extra or {}).get("file"), space.name.rpartition(":")[2]
    name = f"{file}:{kind}" if isinstance(file, str) else space.name
    return how_to_load(str(section.folder.absolute()), which, name)


def _show_runs(sections: "tuple[Section, ...]") -> None:
    if all(section.report.reference_score is None for section in sections):
        return
    rows = [
        [section.label, section.report.run.synthetic.method or UNKNOWN, *_agreement(section.report.default)]
        for section in sections
    ]
    table(
        "Agreement with the reference ranking",
        ["run", "method", "Spearman", "95% interval", "n", "best 20% (n)"],
        rows,
    )
    for row in sections[0].report.comparison or ():
        if row.difference is not None and row.difference.value is None and row.difference.reason:
            stdout.print(f"{row.name} is not compared: {row.difference.reason}", markup=False)


def _unfinished(report: "Report") -> str | None:
    if report.run.complete:
        return None
    if not report.counts.ranked:
        return "the search has not finished: none of its architectures has a score yet"
    return "the search has not finished: this is what is stored so far"


def _failed_references(report: "Report") -> str | None:
    failed = report.counts.failed_references
    if not failed:
        return None
    trials = plural(report.savings.reference_trials, "reference trial")
    have = by_count(failed, "its architecture has", "their architectures have")
    return f"{failed} of {trials} failed: {have} no reference score, ranking.csv says why"

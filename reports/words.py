"""The words around the numbers: titles, what was run, and what each statistic means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reports import formatting
from reports.bootstrap import RESAMPLES, Difference
from reports.section import Section

DEFINITIONS = (
    "Spearman is Pearson's correlation of the ranks, ties sharing their average rank: 1 is the same order,"
    " 0 none, -1 the reverse. Its 95% interval is the percentile bootstrap over architectures "
    f"({RESAMPLES:,} resamples); p is the two-sided chance of so much agreement if there were none (all "
    "orders up to n = 8, random orders up to 29, Student's t from 30).",
    "Kendall tau-b: (pairs in the right order - pairs in the wrong order) / pairs, corrected for ties.",
    "Best 20% and best 5%: Spearman among the architectures the reference puts there, those tied with the "
    "last included. A dash: fewer than 3 of them, or all equal.",
    "Pick loses: the best reference score minus that of the architecture ranked first; of several ranked "
    "first, their mean.",
    "Precision and recall: good means in the reference's best 20%, kept means in the ranking's best k%, "
    "rounded up. A group tied at the last place counts by the share of it that fits.",
    "Compute: core-seconds where all ran on a CPU, else wall seconds added up. "
    "Speed-up: compute-seconds on real data over compute-seconds on the synthetic set, on the "
    "architectures measured in both ways, nothing extrapolated. Break-even: distillation seconds over the "
    "seconds saved per architecture.",
)


def title(sections: Sequence[Section]) -> str:
    """The page's heading."""
    if len(sections) > 1:
        return f"{len(sections)} rankings of architectures side by side"
    return f"Ranking architectures on {_set_of(sections[0])}"


def subtitle(sections: Sequence[Section]) -> str:
    """What the page is about, in one line."""
    if len(sections) > 1:
        return ", ".join(section.label for section in sections)
    info = sections[0].report.run
    return f"{sections[0].report.counts.proposed} architectures of {info.space.name} on {info.dataset.name}"


def facts(section: Section) -> Iterator[tuple[str, str]]:
    """What was run: pairs of name and value, leaving out what is not known."""
    run = section.report.run
    yield "Dataset", run.dataset.name
    yield "Synthetic set", _set_of(section)
    yield (
        "Space",
        run.space.name + (f", {run.space.fitting} fit of {run.space.size}" if run.space.fitting else ""),
    )
    yield "Strategy", run.strategy.name
    yield "Ranked by", section.score.label
    yield "Reference", _reference(section)
    if run.device:
        yield "Device", run.device + (f", {run.workers} workers" if run.workers else "")
    if run.seed is not None:
        yield "Seed", str(run.seed)
    if run.command:
        yield "Command", run.command


def describe_difference(difference: Difference | None) -> str:
    """+0.05 (-0.02 to 0.12)."""
    if difference is None:
        return formatting.UNKNOWN
    if difference.value is None or difference.interval is None:
        return difference.reason or formatting.UNKNOWN
    low, high = difference.interval.low, difference.interval.high
    return f"{difference.value:+.2f} ({formatting.interval(low, high)})"


def _set_of(section: Section) -> str:
    synthetic = section.report.run.synthetic
    images = f"{synthetic.images} {synthetic.method} images"
    if synthetic.images is None:
        images = f"{synthetic.method} images"
    return images if synthetic.ipc is None else f"{images}, {synthetic.ipc} a class"


def _reference(section: Section) -> str:
    reference = section.report.run.reference
    if reference.kind == "none":
        return "none"
    if reference.kind == "table":
        return f"table {reference.table}" if reference.table else "table"
    return f"trained on real data{_training_of(reference.settings or {})}, {section.reference.label}"


def _training_of(settings: Mapping[str, Any]) -> str:
    """on 1,211 images for 10 epochs: as far as the settings say so."""
    images, epochs = settings.get("training_images"), (settings.get("training") or {}).get("epochs")
    said = f" on {images:,} images" if isinstance(images, int) else ""
    return f"{said} for {epochs} epochs" if epochs else said

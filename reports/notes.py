"""What a reader must know to read the numbers right: what was dropped, ties, how seconds were measured."""

from __future__ import annotations

import math

from reports.document import Counts
from reports.savings import Savings
from reports.schema import Run

SMALL_NOISE = math.sqrt(0.1)
"""Of the deviation among architectures: the noise is then a tenth of their variance."""


def write_notes(run: Run, counts: Counts, savings: Savings) -> list[str]:
    """One sentence a caveat that holds for this run, in the order of the report."""
    candidates = [
        _incomplete(run),
        _failed(counts),
        _unmatched(run, counts),
        _foreign(run),
        _ties(counts),
        _noise(run),
        *_cost_notes(run, savings),
    ]
    return [note for note in candidates if note is not None]


def _incomplete(run: Run) -> str | None:
    if run.info.complete:
        return None
    return "The search has not finished: these are the trials stored so far."


def _failed(counts: Counts) -> str | None:
    if not counts.failed and not counts.unscored:
        return None
    missing = f", {counts.unscored} did not record the score" if counts.unscored else ""
    return f"Of {counts.proposed} architectures {counts.failed} failed{missing}; they have no rank."


def _unmatched(run: Run, counts: Counts) -> str | None:
    if run.info.reference.kind == "none" or not counts.without_reference:
        return None
    return (
        f"{counts.without_reference} of {counts.ranked} ranked architectures have no reference score: "
        f"everything said about agreement rests on the other {counts.pairs}."
    )


def _foreign(run: Run) -> str | None:
    foreign = run.info.reference.foreign
    if not foreign:
        return None
    return f"{foreign} rows of the reference table name architectures that this space does not have."


def _ties(counts: Counts) -> str | None:
    if not counts.tied_scores and not counts.tied_references:
        return None
    return (
        f"Ties: {counts.tied_scores} of {counts.ranked} architectures share their score with another and "
        f"so the lowest rank of their group; {counts.tied_references} of {counts.pairs} share their "
        "reference score. Correlations use average ranks; what is kept or picked is averaged over all ways "
        "to break the ties."
    )


def _noise(run: Run) -> str | None:
    """Said where the luck of few validation images is a tenth or more of what tells architectures apart."""
    images = run.info.proxy.get("validation_images")
    column = "score:validation_accuracy"
    if run.info.score != "validation_accuracy" or not isinstance(images, int) or column not in run.trials:
        return None
    accuracies = run.trials[column].dropna()
    if len(accuracies) < 3 or not images:
        return None
    error = math.sqrt(float((accuracies * (1 - accuracies)).mean()) / images)
    deviation = float(accuracies.std())
    if error < SMALL_NOISE * deviation:
        return None
    return (
        f"An accuracy on {images:,} validation images has a standard error of {100 * error:.1f} points, and "
        f"the architectures' accuracies a deviation of {100 * deviation:.1f}: part of their order is luck."
    )


def _cost_notes(run: Run, savings: Savings) -> list[str | None]:
    if run.info.reference.kind != "real":
        return []
    return [_subset(savings), _cached(run), _devices(run)]


def _subset(savings: Savings) -> str | None:
    if not savings.pairs or savings.pairs == savings.proxy_trials == savings.reference_trials:
        return None
    return (
        f"Speed-up and break-even are measured on the {savings.pairs} architectures that succeeded in both "
        f"ways ({savings.proxy_trials} proxy trials, {savings.reference_trials} reference trials)."
    )


def _cached(run: Run) -> str | None:
    cached = int(run.reference["cached"].astype(bool).sum())
    if not cached:
        return None
    return (
        f"{cached} of {len(run.reference)} reference trials were reused from an earlier run: their seconds "
        "are those measured then, and the wall seconds of this run do not contain them."
    )


def _devices(run: Run) -> str | None:
    devices = {*run.trials["device"], *run.reference["device"], run.info.synthetic.device} - {"", None}
    if len(devices) < 2:
        return None
    return (
        f"Seconds were measured on different devices ({', '.join(sorted(devices))}): compare them with care."
    )

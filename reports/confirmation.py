"""The table of the architectures that were trained on the real images to be kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from reports.confirmed import by_class, how_to_load, merit, weights_file
from reports.document import Confirmed, ConfirmedRow
from reports.ranking import ranking_table
from reports.runs import Run
from reports.schema import ConfirmInfo


def describe_confirmed(run: Run, spent: str) -> Confirmed | None:
    """The confirmed architectures, the best first, failed ones last; None where there are none.

    Args:
        spent: the column that counts compute.
    """
    if run.confirmed.empty:
        return None
    info = run.info.confirm or ConfirmInfo()
    trials = sorted(run.confirmed.to_dict("records"), key=_merit_of)
    ranks, done = _proxy_ranks(run), [trial for trial in trials if trial["status"] == "done"]
    whole = all(_is_kept(run, trial) for trial in done)
    return Confirmed(
        asked=info.count,
        settings=info.settings,
        rows=[_row(run, trial, place, ranks, whole=whole) for place, trial in enumerate(trials, start=1)],
        seconds=float(run.confirmed[spent].sum()),
    )


def _row(
    run: Run, trial: dict[str, Any], place: int, ranks: Mapping[str, int], *, whole: bool
) -> ConfirmedRow:
    """`whole`: all files are there; otherwise they have other ranks where they are loaded."""
    name, done = trial["architecture"], trial["status"] == "done"
    kept = done and _is_kept(run, trial)
    return ConfirmedRow(
        rank=place if done else None,
        proxy_rank=ranks.get(name),
        architecture=name,
        validation_accuracy=_score(trial, "validation_accuracy") if done else None,
        test_accuracy=_score(trial, "test_accuracy") if done else None,
        lowest_class=_lowest(run, trial) if done else None,
        seconds=trial["seconds"],
        cpu_seconds=trial["cpu_seconds"],
        weights=weights_file(name) if kept else None,
        load=how_to_load(str(run.folder), place if whole else name, run.info.space.name) if kept else None,
        reason=trial["reason"] if isinstance(trial["reason"], str) else None,
    )


def _lowest(run: Run, trial: Mapping[str, Any]) -> tuple[str, float] | None:
    """The class of the lowest accuracy on its test images, with that; None where it is not known."""
    names = run.info.dataset.class_names
    shares = by_class({column.removeprefix("score:"): value for column, value in trial.items()})
    known = [(names[k], share) for k, share in shares.items() if k < len(names) and not math.isnan(share)]
    return min(known, key=lambda entry: entry[1], default=None)


def _is_kept(run: Run, trial: Mapping[str, Any]) -> bool:
    return (run.folder / weights_file(trial["architecture"])).is_file()


def _merit_of(trial: dict[str, Any]) -> tuple[bool, float, float]:
    accuracy, loss = _score(trial, "validation_accuracy"), _score(trial, "validation_loss")
    return trial["status"] != "done", *merit(accuracy or 0.0, loss)


def _score(trial: dict[str, Any], name: str) -> float | None:
    value = trial.get(f"score:{name}", math.nan)
    return None if math.isnan(value) else float(value)


def _proxy_ranks(run: Run) -> dict[str, int]:
    """Each architecture's rank by the run's own score, by which the best were chosen."""
    table = ranking_table(run, run.info.score).dropna(subset="rank")
    return {str(name): int(rank) for name, rank in zip(table["architecture"], table["rank"], strict=True)}

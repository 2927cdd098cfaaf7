"""Searches that stop trainings early, before they end: places by what is stored of each rung so far."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from reports.scores import HALVING, describe_score

Row = Mapping[str, Any]
_STORED_AS = re.compile("proxy after ([0-9]{1,9}) epochs")


def ranked_so_far(rows: Sequence[Row], criterion: str) -> list[dict[str, Any]]:
    """A row an architecture that has done a rung and has no place yet: its last trial, and what all took.

    The place is the rung that it reached, counted from 0, and the share of those that did this rung so far
    which it beat by the criterion: what a search stores when it ends, if it ended now.

    Args:
        rows: of a trial store in the order proposed, see `reports.store.read_rows`.
        criterion: the score by which architectures go on.
    """
    ranked = {row["architecture"] for row in rows if row["estimator"] == "proxy"}
    order = {row["architecture"]: number for number, row in reversed(list(enumerate(rows)))}
    rungs: dict[int, dict[str, Row]] = {}
    for row in rows:
        stored_as = _STORED_AS.fullmatch(str(row["estimator"]))
        if stored_as and row["architecture"] not in ranked:
            rungs.setdefault(int(stored_as[1]), {})[row["architecture"]] = row
    found: dict[str, dict[str, Any]] = {}
    for number, (epochs, rung) in enumerate(sorted(rungs.items())):
        worths = {name: _worth(row, criterion) for name, row in rung.items()}
        values = [worth for worth in worths.values() if worth is not None]
        for name, row in rung.items():
            worth, own = worths[name], {}
            if worth is not None:
                beaten = sum(value < worth for value in values) / len(values)
                own = {HALVING: number + beaten, "trained_epochs": float(epochs)}
            found[name] = _with_costs(row, found.get(name), own)
    return sorted(found.values(), key=lambda row: order[row["architecture"]])


def _worth(row: Row, criterion: str) -> float | None:
    value = row["scores"].get(criterion) if row["status"] == "done" else None
    return None if value is None else describe_score(criterion).sign * float(value)


def _with_costs(row: Row, before: Row | None, own: Mapping[str, float]) -> dict[str, Any]:
    """A trial as the search's, counting what earlier rungs took."""
    whole = {**row, "estimator": "proxy", "scores": {**row["scores"], **own}}
    if before is not None:
        whole |= {name: row[name] + before[name] for name in ("seconds", "cpu_seconds")}
        peaks = [each for each in (row["peak_memory_mb"], before["peak_memory_mb"]) if each is not None]
        whole["peak_memory_mb"] = max(peaks, default=None)
    return whole

"""Searches that stop trainings early, before they end: places by what is stored of each rung so far."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

from reports.scores import HALVING, describe_score

Row = Mapping[str, Any]
_STORED_AS = re.compile("proxy after ([0-9]{1,9}) epochs")


def places(rungs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The place of each architecture, higher is better, by what those that did each rung are worth.

    It is the last rung that it did, counted from 0, and the share of that rung's that it beat, in [0, 1).
    """
    found: dict[str, float] = {}
    for number, worths in enumerate(rungs):
        values = sorted(worths.values())
        found |= {name: number + bisect_left(values, worth) / len(values) for name, worth in worths.items()}
    return found


def ranked_so_far(rows: Sequence[Row], criterion: str) -> list[dict[str, Any]]:
    """A row an architecture that has done a rung and has no place yet: its last trial, and what all took.

    Its place is what the search would store if it ended now, among all that did a rung: a search that is
    stopped while it stores places has stored some.

    Args:
        rows: of a trial store in the order proposed, see `reports.store.read_rows`.
        criterion: the score by which architectures go on.
    """
    ranked = {row["architecture"] for row in rows if row["estimator"] == "proxy"}
    order = {row["architecture"]: number for number, row in reversed(list(enumerate(rows)))}
    rungs: dict[int, dict[str, Row]] = {}
    for row in rows:
        stored_as = _STORED_AS.fullmatch(str(row["estimator"]))
        if stored_as:
            rungs.setdefault(int(stored_as[1]), {})[row["architecture"]] = row
    found: dict[str, dict[str, Any]] = {}
    worths = [_worths(rungs[epochs], criterion) for epochs in sorted(rungs)]
    place = places(worths)
    for epochs, worth in zip(sorted(rungs), worths, strict=True):
        for name, row in rungs[epochs].items():
            if name in ranked:
                continue
            own = {HALVING: place[name], "trained_epochs": float(epochs)} if name in worth else {}
            found[name] = _with_costs(row, found.get(name), own)
    return sorted(found.values(), key=lambda row: order[row["architecture"]])


def _worths(rung: Mapping[str, Row], criterion: str) -> dict[str, float]:
    """By which a rung's trials are compared, higher is better; those left out that have no score."""
    sign = describe_score(criterion).sign
    done = {name: row["scores"] for name, row in rung.items() if row["status"] == "done"}
    return {name: sign * scores[criterion] for name, scores in done.items() if criterion in scores}


def _with_costs(row: Row, before: Row | None, own: Mapping[str, float]) -> dict[str, Any]:
    """A trial as the search's, counting what earlier rungs took."""
    whole = {**row, "estimator": "proxy", "scores": {**row["scores"], **own}}
    if before is not None:
        whole |= {name: row[name] + before[name] for name in ("seconds", "cpu_seconds")}
        peaks = [each for each in (row["peak_memory_mb"], before["peak_memory_mb"]) if each is not None]
        whole["peak_memory_mb"] = max(peaks, default=None)
    return whole

"""Searches that stop trainings early, before they end: places by what is stored of each rung so far."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from reports.scores import HALVING, describe_score

Row = Mapping[str, Any]
_Value = TypeVar("_Value", float, tuple[float, ...])
_STORED_AS = re.compile("proxy after ([0-9]{1,9}) epochs")


def places(rungs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The place of each architecture, higher is better, by what those that did each rung are worth.

    Where all began at the first rung, it is the last rung that it did, counted from 0, and the share of that
    rung's that it beat, in [0, 1).

    Of hyperband's brackets each later one begins at a later rung, so that to have done a late one says
    little. But whose turn it is to begin there is chance: the share of its own bracket that an architecture
    has left behind compares it with all. These shares are then exchanged among those that were stopped at
    the same rung, of whatever bracket, so that who is worth more has the larger one: what trained equally
    long can be compared at once. The place is the share of all that have less, in [0, 1); of equals those
    that got further have more, then those that are worth more. (On 48 ConvNets it agrees with accuracies on
    real images at .65, the last rung and its share at .36.)
    """
    begun: dict[str, int] = {}
    for number, worths in enumerate(rungs):
        begun |= {name: number for name in worths if name not in begun}
    if len(set(begun.values())) > 1:
        return _across_brackets(rungs, begun)
    return {
        name: number + share for number, worths in enumerate(rungs) for name, share in _beaten(worths).items()
    }


def _across_brackets(rungs: Sequence[Mapping[str, float]], begun: Mapping[str, int]) -> dict[str, float]:
    """See `places`; `begun`: the rung at which each architecture began."""
    ended = {name: number for number, worths in enumerate(rungs) for name in worths}
    left_behind: dict[str, float] = {}
    for first in set(begun.values()):
        bracket = [name for name in begun if begun[name] == first]
        left_behind |= _beaten({name: (float(ended[name]), rungs[ended[name]][name]) for name in bracket})
    found: dict[str, tuple[float, ...]] = {}
    for number, worths in enumerate(rungs):
        stopped = {name: worths[name] for name, last in ended.items() if last == number}
        shares, in_order = sorted(left_behind[name] for name in stopped), sorted(stopped.values())
        for name, worth in stopped.items():
            found[name] = (shares[bisect_left(in_order, worth)], float(number), worth)
    return _beaten(found)


def _beaten(values: Mapping[str, _Value]) -> dict[str, float]:
    """The share of them all that each is above."""
    in_order = sorted(values.values())
    return {name: bisect_left(in_order, value) / len(in_order) for name, value in values.items()}


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

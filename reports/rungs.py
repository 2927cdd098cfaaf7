"""Searches that stop trainings early, before they end: places by what is stored of each rung so far."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from reports.combining import mean_of_ranks
from reports.scores import HALVING, MEAN_OF_RANKS, describe_score
from reports.weights import weights_of

Row = Mapping[str, Any]
_Value = TypeVar("_Value", float, tuple[float, ...])
_STORED_AS = re.compile("proxy after ([0-9]{1,9}) epochs")


def has_trained(estimators: Iterable[str]) -> bool:
    """Whether some architecture has trained as the proxy, by the names of the stored trials."""
    return any(name == "proxy" or _STORED_AS.fullmatch(name) for name in estimators)


def worths(
    scores: Mapping[str, Mapping[str, float]],
    criterion: str,
    combined: Sequence[str] = (),
    *,
    same_as: Callable[[str], str] = str,
) -> dict[str, float]:
    """What architectures are compared by that did a rung, higher is better; those left out that lack a score.

    Args:
        scores: of each architecture, by name.
        criterion: the score by which they go on; `MEAN_OF_RANKS` is the mean of their ranks, among
            themselves, by each score of `combined`.
        same_as: an architecture -> what stands for all that are the same network: they count as one, by the
            first of their names that has all scores.
    """
    parts = weights_of(combined) if criterion == MEAN_OF_RANKS else {criterion: 1.0}
    if not parts:
        return {}
    networks: dict[str, Mapping[str, float]] = {}
    for name, own in scores.items():
        if parts.keys() <= own.keys():
            networks.setdefault(same_as(name), own)
    signs = {part: describe_score(part).sign for part in parts}
    columns = [[sign * own[part] for own in networks.values()] for part, sign in signs.items()]
    values = columns[0]
    if criterion == MEAN_OF_RANKS:
        values = mean_of_ranks(columns, list(parts.values())).tolist()
    found = {network: value for network, value in zip(networks, values, strict=True) if not math.isnan(value)}
    return {name: found[same_as(name)] for name in scores if same_as(name) in found}


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


def ranked_so_far(
    rows: Sequence[Row],
    criterion: str,
    combined: Sequence[str] = (),
    *,
    same_as: Callable[[str], str] = str,
) -> list[dict[str, Any]]:
    """A row an architecture that has done a rung and has no place yet: its last trial, and what all took.

    Its place is what the search would store if it ended now, among all that did a rung: a search that is
    stopped while it stores places has stored some.

    Args:
        rows: of a trial store in the order proposed, see `reports.store.read_rows`.
        criterion, combined, same_as: by what architectures go on, see `worths`.
    """
    ranked = {row["architecture"] for row in rows if row["estimator"] == "proxy"}
    order = {row["architecture"]: number for number, row in reversed(list(enumerate(rows)))}
    rungs, beside = _rungs(rows), _beside(rows, weights_of(combined))
    found: dict[str, dict[str, Any]] = {}
    known = [_known(rungs[epochs], beside) for epochs in sorted(rungs)]
    worth_at = [worths(scores, criterion, combined, same_as=same_as) for scores in known]
    place = places(worth_at)
    for epochs, worth in zip(sorted(rungs), worth_at, strict=True):
        for name, row in rungs[epochs].items():
            if name in ranked:
                continue
            own = {HALVING: place[name], "trained_epochs": float(epochs)} if name in worth else {}
            found[name] = _with_costs(row, found.get(name), own)
    return sorted(found.values(), key=lambda row: order[row["architecture"]])


def _rungs(rows: Sequence[Row]) -> dict[int, dict[str, Row]]:
    """The trials of each rung, by the epochs done at its end."""
    rungs: dict[int, dict[str, Row]] = {}
    for row in rows:
        stored_as = _STORED_AS.fullmatch(str(row["estimator"]))
        if stored_as:
            rungs.setdefault(int(stored_as[1]), {})[row["architecture"]] = row
    return rungs


def _beside(rows: Sequence[Row], estimators: Container[str]) -> dict[str, dict[str, float]]:
    """The scores of each architecture by these estimators."""
    beside: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["estimator"] in estimators and row["status"] == "done":
            beside.setdefault(row["architecture"], {}).update(row["scores"])
    return beside


def _known(rung: Mapping[str, Row], beside: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """The scores of what did a rung, with those that need no training."""
    done = {name: row["scores"] for name, row in rung.items() if row["status"] == "done"}
    return {name: {**beside.get(name, {}), **scores} for name, scores in done.items()}


def _with_costs(row: Row, before: Row | None, own: Mapping[str, float]) -> dict[str, Any]:
    """A trial as the search's, counting what earlier rungs took."""
    whole = {**row, "estimator": "proxy", "scores": {**row["scores"], **own}}
    if before is not None:
        whole |= {name: row[name] + before[name] for name in ("seconds", "cpu_seconds")}
        peaks = [each for each in (row["peak_memory_mb"], before["peak_memory_mb"]) if each is not None]
        whole["peak_memory_mb"] = max(peaks, default=None)
    return whole

"""Rulers against one another: who agrees better with the reference than the one that ranks; pure functions.

The ruler that the ranking is made by was chosen before the numbers were seen, so every other one is compared
with it: compared with the best of them, whichever that turned out to be, all would look worse than they are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from reports.bootstrap import HOLDS_FROM, RESAMPLES, Difference, Interval, generator, spearman_difference
from reports.correlation import MIN_PAIRS
from reports.formatting import by_count

LEVEL = 0.05
"""The chance that any of the comparisons of a report calls two equal rulers different."""
RESAMPLES_A_RULER = 200
"""The smallest p-value, corrected for as many rulers as there are, is then 2 / 200: well below the level."""
MOST_RESAMPLES = 20_000
"""For a hundred rulers as many as above; of many more, of which none will differ, fewer."""


@dataclass(frozen=True, kw_only=True)
class RulerDifference:
    """Spearman with the reference, of one ruler minus that of the ranking's own, on the same n architectures.

    `p_value` is that of this comparison alone, `p_holm` the one corrected for all comparisons of the report;
    both are None below 10 networks, as the interval is; all numbers are where `reason` says why.
    """

    value: float | None
    n: int
    interval: Interval | None
    p_value: float | None
    p_holm: float | None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class RulerComparison:
    """What the comparisons say together: `better` and `worse` than `against` at `level` after Holm.

    `compared` counts the rulers with a p-value, the others are left out of it; all are named as in `scores`.
    """

    against: str
    compared: int
    level: float
    better: list[str]
    worse: list[str]
    sentence: str


def compare_rulers(
    rulers: Mapping[str, ArrayLike],
    against: str,
    reference: ArrayLike,
    *,
    networks: ArrayLike | None = None,
    untested: Collection[str] = (),
) -> dict[str, RulerDifference]:
    """Every ruler but `against` against it: oriented scores of the same architectures, NaN where missing.

    `networks`: see `bootstrap.spearman_interval`. The `untested`, whose p-values would not hold, get none. A
    difference does not depend on which others are asked for, but for more resamples where these are many.
    """
    others = [name for name in rulers if name != against]
    resamples = min(MOST_RESAMPLES, max(RESAMPLES, RESAMPLES_A_RULER * len(others)))
    found = {
        name: spearman_difference(
            rulers[name],
            rulers[against],
            reference,
            rng=generator(f"{name} against {against}"),
            networks=networks,
            resamples=resamples,
        )
        for name in others
    }
    found |= {name: replace(found[name], p_value=None) for name in untested if name in found}
    tested = {name: each.p_value for name, each in found.items() if each.p_value is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {name: _with_correction(each, corrected.get(name)) for name, each in found.items()}


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): valid whatever the dependence of the m tests, in the given order.

    p_holm of the i-th smallest = max over j <= i of (m - j + 1) p_(j), at most 1.
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return [float(p) for p in corrected]


def summarise(
    differences: Mapping[str, RulerDifference], against: str, labels: Mapping[str, str], networks: int
) -> RulerComparison | None:
    """Who is better and who worse beyond chance, and the sentence that says so; None if nothing compares.

    Args:
        differences: from `compare_rulers`.
        against: the ranking's own ruler.
        labels: what people call the rulers.
        networks: different ones on which the ranking's own ruler can be judged.
    """
    if not differences or networks < MIN_PAIRS:
        return None
    tested = {name: each for name, each in differences.items() if each.p_holm is not None}
    apart = {name: each for name, each in tested.items() if (each.p_holm or 0.0) < LEVEL}
    better = [name for name, each in apart.items() if (each.value or 0.0) > 0]
    worse = [name for name in apart if name not in better]
    named = [[labels[name] for name in names] for names in (better, worse)]
    return RulerComparison(
        against=against,
        compared=len(tested),
        level=LEVEL,
        better=better,
        worse=worse,
        sentence=_sentence(labels[against], len(tested), *named, networks=networks),
    )


def _with_correction(found: Difference, p_holm: float | None) -> RulerDifference:
    return RulerDifference(
        value=found.value,
        n=found.n,
        interval=found.interval,
        p_value=found.p_value,
        p_holm=p_holm,
        reason=found.reason,
    )


def _sentence(against: str, compared: int, better: list[str], worse: list[str], *, networks: int) -> str:
    if not compared:
        if networks >= HOLDS_FROM:
            return f"No other ruler can be compared with {against}."
        return (
            f"Too few architectures (n = {networks}) to compare other rulers with {against}: "
            f"at least {HOLDS_FROM} are needed."
        )
    rest = compared - len(better) - len(worse)
    parts = [
        f"{_count('better', better)} with the reference than {against}{_named(better)}",
        f"{_count('worse', worse)}{_named(worse)}",
        *([f"{rest} cannot be told apart from it"] if rest else []),
    ]
    corrected = "" if compared == 1 else f" corrected by Holm for {compared} comparisons"
    return (
        f"Of {compared} other {by_count(compared, 'ruler', 'rulers')} on the same architectures "
        f"{'; '.join(parts)} (paired bootstrap, p below {LEVEL:g}{corrected})."
    )


def _count(how: str, names: Sequence[str]) -> str:
    """none can be told to agree better, 1 agrees better, 2 agree better."""
    if not names:
        return f"none can be told to agree {how}"
    return f"{len(names)} {'agree' if len(names) > 1 else 'agrees'} {how}"


def _named(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""

"""Whether to trust the ranking, in one sentence: pure functions of the statistics.

The thresholds are on the low end of Spearman's interval, what the data supports rather than what they
happened to show; to be called better than guessing the p-value must say so too. Their meaning, for bivariate
normal scores (r = 2 sin(pi rho / 6), pairs in order = 1/2 + asin(r) / pi): at rho = .4 64% of pairs are in
the right order and an architecture of the best 5% stays in the better half 82% of the time; at rho = .7 it is
75% of the pairs and 98% of the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from reports import formatting
from reports.bootstrap import HOLDS_FROM, Interval
from reports.correlation import MIN_PAIRS, Statistic
from reports.selection import Pick

MIN_NETWORKS = HOLDS_FROM
"""Below it bootstrap intervals are too narrow, see bootstrap.py."""
SIGNIFICANT_BELOW = 0.05
"""The p-value that goes with a 95% interval; near 0 the two may disagree, being computed differently."""
MODERATE_FROM = 0.4
"""Discarding the worse half then loses 18% of the best: the most that is worth the time saved."""
STRONG_FROM = 0.7
"""Discarding the worse half then loses 2% of the best."""
TOP_ORDER_FROM = 0.5
"""Spearman among the best 20% from which two in three pairs of good architectures are in the right order."""
TOP_FEWEST = 5
"""Architectures among the best 20% from which their correlation is said: three have only six orders."""
SMALL_REGRET = 0.25
"""A pick may lose at most this share of what a pick at random loses, to be called good."""

Level = Literal[
    "no reference", "not enough data", "reference at chance", "guessing", "weak", "moderate", "strong"
]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How far the ranking can be trusted, and the sentence that says so."""

    level: Level
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Once:
    """Spearman with each network counted once, and the low end of its interval, where they are known."""

    value: float | None
    low: float | None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a verdict rests on: the default score's statistics, and rho of counting parameters.

    `networks` and `top_networks`: how many different ones the pairs of `spearman` and of `top` are, where
    some are one network by several names; None where all differ. `once`: the agreement without the weight
    that names give; the lower of the two decides.
    """

    spearman: Statistic
    interval: Interval | None
    p_value: float | None
    top: Statistic
    pick: Pick | None
    parameters: float | None = None
    networks: int | None = None
    top_networks: int | None = None
    once: Once | None = None
    luck: str | None = None


def judge(evidence: Evidence | None, *, show: Callable[[float], str] = "{:.3g}".format) -> Verdict:
    """The verdict; no evidence: the run has no reference. `show` writes a gap between reference scores."""
    if evidence is None:
        return Verdict(
            level="no reference",
            sentence="Unknown: with no reference to compare with, nothing says how good this ranking is.",
        )
    level = _level(evidence)
    if level == "not enough data":
        return Verdict(level=level, sentence=_too_little(evidence))
    if evidence.luck and level in ("guessing", "weak"):  # an order of luck agrees with nothing
        return Verdict(level="reference at chance", sentence=f"No verdict: {evidence.luck}")
    return Verdict(level=level, sentence=f"{_advice(level, evidence)}: {_because(evidence, show)}.")


def _level(evidence: Evidence) -> Level:
    if _different(evidence.spearman, evidence.networks) < MIN_NETWORKS or evidence.interval is None:
        return "not enough data"
    low = _low(evidence, evidence.interval)
    if low <= 0 and not _significant(evidence):
        return "guessing"
    if low < MODERATE_FROM:
        return "weak"
    return "moderate" if low < STRONG_FROM else "strong"


def _low(evidence: Evidence, interval: Interval) -> float:
    once = evidence.once.low if evidence.once else None
    return interval.low if once is None else min(interval.low, once)


def _different(statistic: Statistic, networks: int | None) -> int:
    return statistic.n if networks is None else networks


def _significant(evidence: Evidence) -> bool:
    """Whether the p-value says that the ranking is better, not only other, than guessing."""
    rho, p = evidence.spearman.value, evidence.p_value
    return rho is not None and rho > 0 and p is not None and p < SIGNIFICANT_BELOW


def _too_little(evidence: Evidence) -> str:
    rho, n = evidence.spearman.value, evidence.spearman.n
    if rho is None and n >= MIN_PAIRS:
        return f"No verdict: {evidence.spearman.reason}."
    pairs = f"only {formatting.plural(n, 'architecture')}" if n else "no architecture"
    have = formatting.by_count(max(n, 1), "has", "have")
    found = "" if rho is None else f" (Spearman {formatting.decimals(rho)})"
    different = _different(evidence.spearman, evidence.networks)
    these = f", {formatting.plural(different, 'network')} by several names," if different < n else ""
    return (
        f"No verdict: not enough data, {pairs}{these} {have} both a score and a reference score and at least "
        f"{MIN_NETWORKS}{' different ones' if these else ''} are needed{found}; a run is added to by "
        "searching with --resume and more --samples, or more --reference-samples where they are fewer."
    )


def _advice(level: Level, evidence: Evidence) -> str:
    if level == "guessing":
        if evidence.interval is not None and evidence.interval.high < 0:
            return "Do not trust it, it ranks the wrong way round"
        return "Do not trust it, it cannot be told apart from guessing"
    if level == "weak" and not (
        _significant(evidence) and evidence.interval and _low(evidence, evidence.interval) > 0
    ):
        return (
            "Trust it for a hint at most, interval and p-value disagree on whether it is better than guessing"
        )
    if level == "weak":
        return "Trust it for a hint at most, it is better than guessing but may discard good architectures"
    if level == "moderate":
        return "Trust it to discard the bad half, not to name the winner"
    if _names_winner(evidence):
        return "Trust it, for the order and for the winner"
    return "Trust it for the order, but train its best few on real data to find the winner"


def _names_winner(evidence: Evidence) -> bool:
    top, pick = evidence.top.value, evidence.pick
    if top is None or pick is None or _different(evidence.top, evidence.top_networks) < MIN_NETWORKS:
        return False
    return top >= TOP_ORDER_FROM and pick.regret <= SMALL_REGRET * pick.random_regret


def _because(evidence: Evidence, show: Callable[[float], str]) -> str:
    rho, interval, top, pick = evidence.spearman, evidence.interval, evidence.top, evidence.pick
    assert rho.value is not None
    assert interval is not None
    confidence = f"{interval.confidence:.0%} CI {formatting.interval(interval.low, interval.high)}"
    p = "" if evidence.p_value is None else f", p {_equals(evidence.p_value)}"
    n = formatting.sample(rho.n, evidence.networks)
    parts = [f"Spearman {formatting.decimals(rho.value)} ({confidence}, {n}{p})"]
    if evidence.once is not None and evidence.once.value is not None:
        parts.append(f"{formatting.decimals(evidence.once.value)} with each network once")
    if top.value is not None and top.n >= TOP_FEWEST:
        parts.append(f"{formatting.decimals(top.value)} among the best 20% (n = {top.n})")
    if pick is not None:
        parts.append(_regret(pick, show))
    # Twice its standard error where nothing is known: an alternative that is no better than guessing is none.
    luck = 2 / math.sqrt(rho.n)
    if evidence.parameters is not None and evidence.parameters >= max(rho.value, luck):
        parts.append(
            f"but counting parameters, at no cost, reaches {formatting.decimals(evidence.parameters)}"
        )
    return "; ".join(parts)


def _equals(p: float) -> str:
    shown = formatting.p_value(p)
    return shown if shown.startswith("<") else f"= {shown}"


def _regret(pick: Pick, show: Callable[[float], str]) -> str:
    if pick.tied == 1:
        gap = "the best" if pick.regret == 0 else f"{show(pick.regret)} below the best"
        return f"its pick is {gap} of all {pick.n} (a random one: {show(pick.random_regret)} below)"
    gap = "are all the best" if pick.regret == 0 else f"are on average {show(pick.regret)} below the best"
    return (
        f"its {pick.tied} tied picks {gap} of all {pick.n} (a random one: {show(pick.random_regret)} below)"
    )

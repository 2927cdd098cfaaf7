"""What ranking on the synthetic set cost against training on real data: pure arithmetic on measured seconds.

Nothing here is extrapolated: speed-ups and the break-even use only the architectures measured in both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Measured seconds.

    Attributes:
        distill_seconds: wall seconds of making the synthetic set; None where not recorded.
        proxy_seconds: seconds of every proxy trial, failed ones too: they were paid for.
        reference_seconds: seconds of every real trial; None where the reference was not trained here.
        paired_seconds: (proxy, reference) seconds of the networks that succeeded in both, each once.
        no_reference: why `reference_seconds` is None.
    """

    distill_seconds: float | None
    proxy_seconds: Sequence[float]
    reference_seconds: Sequence[float] | None
    paired_seconds: Sequence[tuple[float, float]] = ()
    no_reference: str | None = None


@dataclass(frozen=True, kw_only=True)
class Savings:
    """Compute-seconds (sums of trial seconds) and what follows; None where unknown, `reason` says why.

    Attributes:
        pairs: networks measured in both ways, on which all that follows rests.
        proxy_seconds_each, reference_seconds_each: mean seconds a network, over the pairs.
        speedup_search: reference / proxy seconds over the pairs, distillation left out.
        speedup_total: reference / (distillation + proxy) seconds over the pairs.
        break_even_architectures: distill_seconds / (reference_seconds_each - proxy_seconds_each); from the
            next whole number on, distilling and ranking takes less than training on real data.
    """

    distill_seconds: float | None
    proxy_seconds: float
    reference_seconds: float | None
    proxy_trials: int
    reference_trials: int
    pairs: int
    proxy_seconds_each: float | None = None
    reference_seconds_each: float | None = None
    speedup_search: float | None = None
    speedup_total: float | None = None
    break_even_architectures: float | None = None
    reason: str | None = None
    break_even_reason: str | None = None


def measure_savings(costs: Costs) -> Savings:
    """Totals of `costs`, and speed-up and break-even over the architectures measured in both ways."""
    totals = _totals(costs)
    if costs.reference_seconds is None:
        return _unknown(totals, costs.no_reference or "the cost of the reference is unknown")
    if not costs.paired_seconds:
        return _unknown(totals, "no architecture was measured in both ways")
    proxy = sum(pair[0] for pair in costs.paired_seconds)
    reference = sum(pair[1] for pair in costs.paired_seconds)
    if proxy <= 0 or reference <= 0:
        return _unknown(totals, "the recorded seconds add up to zero")
    return _compared(totals, proxy, reference)


def _totals(costs: Costs) -> Savings:
    reference = costs.reference_seconds
    return Savings(
        distill_seconds=costs.distill_seconds,
        proxy_seconds=sum(costs.proxy_seconds),
        reference_seconds=None if reference is None else sum(reference),
        proxy_trials=len(costs.proxy_seconds),
        reference_trials=len(reference or ()),
        pairs=len(costs.paired_seconds),
    )


def _unknown(totals: Savings, reason: str) -> Savings:
    return replace(totals, reason=reason, break_even_reason=reason)


def _compared(totals: Savings, proxy: float, reference: float) -> Savings:
    proxy_mean, reference_mean = proxy / totals.pairs, reference / totals.pairs
    break_even, why_not = _break_even(totals.distill_seconds, proxy_mean, reference_mean)
    return replace(
        totals,
        proxy_seconds_each=proxy_mean,
        reference_seconds_each=reference_mean,
        speedup_search=reference / proxy,
        speedup_total=_ratio(reference, totals.distill_seconds, proxy),
        break_even_architectures=break_even,
        break_even_reason=why_not,
    )


def _ratio(reference: float, distill: float | None, proxy: float) -> float | None:
    return None if distill is None else reference / (distill + proxy)


def _break_even(
    distill: float | None, proxy_mean: float, reference_mean: float
) -> tuple[float | None, str | None]:
    if proxy_mean >= reference_mean:
        return None, "never: a proxy trial is not cheaper than a reference trial"
    if distill is None:
        return None, "the seconds of distillation are not recorded"
    return distill / (reference_mean - proxy_mean), None

"""How many architectures and seeds it takes to know a rank correlation, and how well given numbers tell it.

Fisher's transform with the variance of Bonett and Wright (2000) for Spearman's rho over n pairs:

    tanh(atanh(rho) +- z sqrt((1 + rho^2 / 2) / (n - 3))),

for pairs that are bivariate normal but for monotone transforms of either score, without ties, n architectures
drawn at random. The mean width of this project's bootstrap intervals is within 7% of it at n = 12, 24, 48,
100, 300 and rho = 0, .5, .8 (300 samples each). Nearer 1 and for few pairs it is larger: by a quarter at
rho = .9 and a half at .95 with n = 24, by 4% and 10% with n = 100.

A score that is the mean of k trainings has less luck in it. Where rankings by one training each agree at r
with one another, and at rho with the reference, that by the mean of k agrees at

    rho sqrt(r_k / r),    r_k = k r / (1 + (k - 1) r),

see `reports.reliability`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

FEWEST = 10
"""Below it neither the formula nor the bootstrap holds its level."""
NARROWEST = 0.001
"""An interval this narrow takes some ten million architectures; no space is larger."""
LARGEST_CORRELATION = 0.95
"""Up to here the formula was checked by its authors."""
CORRELATIONS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
"""From none to about the best that rulers reach."""
SEEDS = (1, 2, 3, 5, 10)
"""Trainings of each architecture that are planned for where it is known how far they agree."""
OF_SEEDS = (
    "The mean of several trainings of each architecture has less luck in it and agrees further with the "
    "reference (Spearman and Brown 1910). There are as many references, which cost most, as architectures. "
    f"Left out are correlations above {LARGEST_CORRELATION:g}, and those by one training above the root of "
    "how far two seeds agree, which cannot be expected."
)
ASSUMPTIONS = (
    "Assumed: architectures drawn at random, no ties, and scores that are bivariate normal but for any "
    "monotone transform of either (Fisher's transform with the variance of Bonett and Wright 2000). With "
    "fewer than 100 architectures the report's bootstrap intervals are wider near 1: with 24, by a quarter "
    "at a correlation of .9 and by a half at .95."
)


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The interval to expect around a true correlation from `samples` architectures.

    Attributes:
        correlation: of the ranking by the mean of `seeds` trainings of each architecture.
        by_one: of that by one training each.
    """

    correlation: float
    by_one: float
    seeds: int
    samples: int
    low: float
    high: float
    width: float

    @property
    def trainings(self) -> int:
        """Of all architectures together."""
        return self.samples * self.seeds


def expected_interval(correlation: float, samples: int, confidence: float) -> Expected:
    """See the head of this file.

    Raises:
        ValueError: if the correlation, the samples or the confidence are out of the formula's range.
    """
    _check(correlation, confidence)
    if samples < FEWEST:
        raise ValueError(f"{samples} architectures are too few for an interval: at least {FEWEST} are needed")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    half = z * math.sqrt((1 + correlation**2 / 2) / (samples - 3))
    middle = math.atanh(correlation)
    low, high = math.tanh(middle - half), math.tanh(middle + half)
    return Expected(
        correlation=correlation,
        by_one=correlation,
        seeds=1,
        samples=samples,
        low=low,
        high=high,
        width=high - low,
    )


def samples_needed(correlation: float, width: float, confidence: float) -> Expected:
    """The fewest architectures, at least `FEWEST`, whose expected interval is no wider than `width`.

    Raises:
        ValueError: as `expected_interval`, and if the width is not between 0 and 2.
    """
    if not NARROWEST <= width < 2:
        raise ValueError(
            f"a width of {width:g} cannot be planned for: give one from {NARROWEST:g} to below 2, such as 0.2"
        )

    def narrow(samples: int) -> bool:
        return expected_interval(correlation, samples, confidence).width <= width

    enough = FEWEST
    while not narrow(enough):
        enough *= 2
    return expected_interval(
        correlation, FEWEST + bisect_left(range(FEWEST, enough), True, key=narrow), confidence
    )


def plan(
    *,
    width: float | None = None,
    samples: int | None = None,
    correlations: Sequence[float] | None = None,
    confidence: float = 0.95,
    agreement: float | None = None,
) -> list[Expected]:
    """One row a correlation: what a width takes, or what a number of architectures gives; one of the two.

    Args:
        correlations: true ones, of one training of each architecture; None: `CORRELATIONS`, as far as they
            are possible.
        agreement: Spearman of two rankings that differ in the seed alone. If it is given, one row a
            correlation and number of trainings in `SEEDS`, as far as the formula reaches.
    Raises:
        ValueError: if neither or both are given, or what is no number, or one out of range.
    """
    _require_numbers(width=width, samples=samples, confidence=confidence, agreement=agreement)
    if isinstance(correlations, str):
        raise ValueError(f"correlations must be a list of numbers, not {correlations!r}")
    for correlation in correlations or ():
        _require_numbers(correlation=correlation)
    if (width is None) == (samples is None):
        raise ValueError(
            "give either the width that an interval may have (--width 0.2) or a number of architectures "
            "(--samples 48)"
        )

    def expected(correlation: float) -> Expected:
        if width is not None:
            return samples_needed(correlation, width, confidence)
        assert samples is not None
        return expected_interval(correlation, samples, confidence)

    if agreement is None:
        return [expected(each) for each in correlations or CORRELATIONS]
    most = _most_with(agreement)
    chosen = correlations or [each for each in CORRELATIONS if each <= most]
    for each in chosen:
        _check(each, confidence)
    if too_high := [each for each in chosen if not abs(each) <= most]:
        raise ValueError(
            f"a correlation of {too_high[0]:g} cannot be expected of rankings that agree at {agreement:g} "
            f"with one another: at most {math.floor(1000 * most) / 1000:g}, the root of it"
        )
    gained = _gained(agreement)
    return [
        replace(expected(by_one * gain), by_one=by_one, seeds=seeds)
        for by_one in chosen
        for seeds, gain in gained.items()
        if abs(by_one * gain) <= LARGEST_CORRELATION
    ]


def _gained(agreement: float) -> dict[int, float]:
    """By how much a correlation grows with the number of trainings of each architecture."""
    from reports.reliability import spearman_brown  # Not before: it imports NumPy.

    return {seeds: math.sqrt(spearman_brown(agreement, seeds) / agreement) for seeds in SEEDS}


def _most_with(agreement: float) -> float:
    """The largest correlation that rankings can be expected to have which agree so far with one another."""
    if not 0 < agreement <= 1:
        raise ValueError(
            f"an agreement of {agreement:g} between two seeds cannot be planned with: give one above 0, at "
            "most 1, such as 0.8"
        )
    return math.sqrt(agreement)


def _require_numbers(**given: object) -> None:
    for name, value in given.items():
        if value is not None and not isinstance(value, int | float):
            raise ValueError(f"{name} must be a number, not {value!r}")


def _check(correlation: float, confidence: float) -> None:
    if not abs(correlation) <= LARGEST_CORRELATION:
        raise ValueError(
            f"a correlation of {correlation:g} cannot be planned for: the formula holds from "
            f"-{LARGEST_CORRELATION:g} to {LARGEST_CORRELATION:g}"
        )
    if not 0 < confidence < 1:
        meant = f"{confidence / 100:g}" if 1 < confidence < 100 else "0.95"
        raise ValueError(f"a confidence of {confidence:g} is none: give one between 0 and 1, such as {meant}")

"""How many architectures it takes: closed forms, both directions, and the project's own bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from reports.bootstrap import spearman_interval
from reports.notes import _next_plan
from reports.planning import (
    CORRELATIONS,
    FEWEST,
    LARGEST_CORRELATION,
    SEEDS,
    expected_interval,
    plan,
    samples_needed,
)
from reports.reliability import spearman_brown


def correlated(n: int, rho_s: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    r = 2 * math.sin(math.pi * rho_s / 6)
    x = rng.normal(size=n)
    return x, r * x + math.sqrt(1 - r * r) * rng.normal(size=n)


@pytest.mark.parametrize("samples", [24, 48, 100])
@pytest.mark.parametrize("rho_s", [0.0, 0.5, 0.8])
def test_the_bootstraps_intervals_are_as_wide_as_planned(samples: int, rho_s: float) -> None:
    # planning.py states 7%; the mean over 150 samples errs by up to 3 points.
    rng = np.random.default_rng([samples, int(10 * rho_s)])
    intervals = [
        spearman_interval(*correlated(samples, rho_s, rng), rng=rng, resamples=400) for _ in range(150)
    ]
    width = np.mean([interval.high - interval.low for interval in intervals if interval is not None])
    assert width == pytest.approx(expected_interval(rho_s, samples, 0.95).width, rel=0.10)


@pytest.mark.parametrize("rho_s", [0.0, 0.6, 0.8])
def test_the_truth_lies_within_the_formulas_interval_as_often_as_it_says(rho_s: float) -> None:
    """Around each sample's own rho; 2,000 simulations: 90% +- 3 sqrt(.9 .1 / 2000) and 1.5 points."""
    rng = np.random.default_rng(int(10 * rho_s))
    found = [scipy.stats.spearmanr(*correlated(60, rho_s, rng)).statistic for _ in range(2_000)]
    intervals = [expected_interval(float(rho), 60, 0.90) for rho in found if abs(rho) <= 0.95]
    held = np.mean([each.low <= rho_s <= each.high for each in intervals])
    assert held == pytest.approx(0.90, abs=0.035)


def test_no_correlation_has_a_closed_form() -> None:
    for width in (0.1, 0.2, 0.5):
        z = scipy.stats.norm.ppf(0.975)
        assert samples_needed(0.0, width, 0.95).samples == math.ceil(3 + (z / math.atanh(width / 2)) ** 2)


@pytest.mark.parametrize("width", [0.05, 0.2, 0.7])
@pytest.mark.parametrize("rho_s", [-0.5, 0.0, 0.8, 0.95])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_both_directions_meet_at_the_fewest_that_do(rho_s: float, width: float, confidence: float) -> None:
    found = samples_needed(rho_s, width, confidence)
    assert found == expected_interval(rho_s, found.samples, confidence)
    assert found.width <= width
    if found.samples > FEWEST:
        assert expected_interval(rho_s, found.samples - 1, confidence).width > width


def test_signs_and_confidence_do_what_they_should() -> None:
    up, down = expected_interval(0.7, 50, 0.95), expected_interval(-0.7, 50, 0.95)
    assert (up.low, up.high) == pytest.approx((-down.high, -down.low))
    assert expected_interval(0.7, 50, 0.99).width > up.width > expected_interval(0.7, 50, 0.5).width


def test_a_plan_has_a_row_a_correlation() -> None:
    rows = plan(width=0.2)
    assert [row.correlation for row in rows] == list(CORRELATIONS)
    needed = [row.samples for row in rows]
    assert needed == sorted(needed, reverse=True)
    assert {row.samples for row in plan(samples=48)} == {48}


@pytest.mark.parametrize(("noise", "reference_noise"), [(0.5, 0.3), (1.0, 1.0), (2.0, 0.1)])
def test_more_trainings_of_each_agree_as_far_as_planned(noise: float, reference_noise: float) -> None:
    draws = np.random.default_rng(3)
    truth = draws.standard_normal(40_000)
    trainings = truth[:, None] + noise * draws.standard_normal((40_000, max(SEEDS)))
    reference = truth + reference_noise * draws.standard_normal(40_000)
    agreement = float(scipy.stats.spearmanr(trainings[:, 0], trainings[:, 1]).statistic)
    by_one = float(scipy.stats.spearmanr(trainings[:, 0], reference).statistic)
    rows = plan(samples=48, correlations=[by_one], agreement=agreement)
    assert [row.seeds for row in rows][:2] == [1, 2]
    for row in rows:
        seen = scipy.stats.spearmanr(trainings[:, : row.seeds].mean(axis=1), reference).statistic
        assert row.correlation == pytest.approx(float(seen), abs=0.02)
        plain = expected_interval(row.correlation, 48, 0.95)
        assert (row.low, row.high, row.trainings) == (plain.low, plain.high, 48 * row.seeds)


@pytest.mark.parametrize("single", [0.05, 0.64, 0.9, 1.0])
@pytest.mark.parametrize("reached", [0.01, 0.5, 0.93, 1.0])
def test_the_plan_that_a_report_proposes_can_be_made(single: float, reached: float) -> None:
    proposed = _next_plan(single, spearman_brown(single, 3), reached).split()
    agreement, by_one = (float(proposed[proposed.index(f"--{name}") + 1].rstrip(",")) for name in
                         ("agreement", "correlation"))  # fmt: skip
    assert agreement == single
    rows = plan(width=0.2, agreement=agreement, correlations=[by_one])
    (by_three,) = [row for row in rows if row.seeds == 3] or [rows[-1]]
    assert by_three.correlation <= reached + 0.01


def test_a_report_proposes_no_plan_where_nothing_agrees() -> None:
    assert _next_plan(0.8, 0.9, None) == _next_plan(0.8, 0.9, -0.2) == _next_plan(0.0, 0.0, 0.5) == ""


def test_what_cannot_be_expected_of_seeds_that_disagree_is_left_out() -> None:
    rows = plan(width=0.2, agreement=0.5)
    assert {row.by_one for row in rows} == {0.0, 0.3, 0.5, 0.6, 0.7}
    assert all(row.correlation <= LARGEST_CORRELATION for row in plan(width=0.2, agreement=1.0))
    assert len(plan(width=0.2, agreement=0.85, correlations=[0.9])) < len(SEEDS)
    more = [row.samples for row in rows if row.by_one == 0.7]
    assert more == sorted(more, reverse=True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "give either the width"),
        ({"width": 0.2, "agreement": 0.0}, "an agreement of 0 between two seeds"),
        ({"width": 0.2, "agreement": 1.1}, "an agreement of 1.1 between two seeds"),
        ({"width": 0.2, "agreement": math.nan}, "an agreement of nan between"),
        ({"width": 0.2, "agreement": 0.25, "correlations": [0.6]}, "a correlation of 0.6 .*: at most 0.5,"),
        (
            {"width": 0.2, "agreement": 0.79, "correlations": [0.89]},
            "a correlation of 0.89 .*: at most 0.888,",
        ),
        ({"width": 0.2, "agreement": 1.0, "correlations": [0.97]}, "a correlation of 0.97 cannot be planned"),
        (
            {"width": 0.2, "agreement": 0.8, "correlations": [math.nan]},
            "a correlation of nan cannot be planned",
        ),
        ({"width": 0.2, "samples": 20}, "give either the width"),
        ({"width": 0.0}, "a width of 0 cannot be planned for"),
        ({"width": 2.0}, "a width of 2 cannot"),
        ({"width": math.nan}, "a width of nan cannot"),
        ({"samples": 9}, "9 architectures are too few"),
        ({"width": 0.2, "correlations": [0.96]}, "a correlation of 0.96 cannot"),
        ({"samples": 20, "correlations": [math.nan]}, "a correlation of nan cannot"),
        ({"samples": 20, "confidence": 95}, "a confidence of 95 is none"),
        ({"samples": 20, "confidence": 1.0}, "a confidence of 1 is none"),
    ],
)
def test_what_cannot_be_planned_is_said(given: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plan(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(("given", "meant"), [(95, "0.95"), (-1, "0.95"), (80, "0.8")])
def test_a_confidence_in_percent_is_told_as_a_share(given, meant):
    with pytest.raises(ValueError, match=f"a confidence of {given} is none: .* such as {meant}$"):
        expected_interval(0.5, 48, given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"width": "0.2"}, r"width must be a number, not '0\.2'"),
        ({"samples": [48]}, r"samples must be a number, not \[48\]"),
        ({"samples": 48, "correlations": "0.8"}, r"correlations must be a list of numbers, not '0\.8'"),
        ({"samples": 48, "correlations": [0.8, "high"]}, "correlation must be a number, not 'high'"),
    ],
)
def test_what_is_no_number_is_refused_in_a_line(given, said):
    with pytest.raises(ValueError, match=f"^{said}$"):
        plan(**given)

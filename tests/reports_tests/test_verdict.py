"""Every level of the verdict, at its thresholds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from reports.bootstrap import Interval
from reports.correlation import Statistic
from reports.selection import Pick
from reports.verdict import MODERATE_FROM, STRONG_FROM, Evidence, Once, judge


def evidence(
    low: float,
    high: float = 0.9,
    n: int = 48,
    top: float = 0.6,
    regret: float = 0.0,
    p_value: float | None = None,
) -> Evidence:
    if p_value is None:  # one that agrees with the interval
        p_value = 0.2 if low <= 0 <= high else 0.01
    return Evidence(
        spearman=Statistic(value=(low + high) / 2, n=n),
        interval=Interval(low=low, high=high, confidence=0.95),
        p_value=p_value,
        top=Statistic(value=top, n=10),
        pick=Pick(best=0.9, picked=0.9 - regret, tied=1, n=n, regret=regret, random_regret=0.1),
    )


@pytest.mark.parametrize(
    ("low", "level", "words"),
    [
        (-0.1, "guessing", "cannot be told apart from guessing"),
        (0.0, "guessing", "cannot be told apart from guessing"),
        (0.01, "weak", "better than guessing"),
        (MODERATE_FROM, "moderate", "discard the bad half, not to name the winner"),
        (STRONG_FROM, "strong", "for the order and for the winner"),
    ],
)
def test_levels_follow_the_low_end(low: float, level: str, words: str) -> None:
    verdict = judge(evidence(low))
    assert verdict.level == level
    assert words in verdict.sentence
    assert f"95% CI {low:.2f} to 0.90, n = 48, p = " in verdict.sentence


@pytest.mark.parametrize(
    ("once", "level"), [(0.1, "weak"), (0.5, "moderate"), (0.9, "strong"), (None, "strong")]
)
def test_names_of_one_network_do_not_raise_the_level(once: float | None, level: str) -> None:
    verdict = judge(replace(evidence(STRONG_FROM), networks=30, once=Once(value=0.55, low=once)))
    assert verdict.level == level
    assert "n = 48 names of 30 networks, p = 0.010); 0.55 with each network once; " in verdict.sentence


def test_a_few_networks_are_too_few_however_many_names_they_have() -> None:
    verdict = judge(replace(evidence(STRONG_FROM), networks=9))
    assert verdict.level == "not enough data"
    assert "only 48 architectures, 9 networks by several names, have both" in verdict.sentence
    top = judge(replace(evidence(STRONG_FROM), top_networks=9))
    assert "train its best few" in top.sentence


@pytest.mark.parametrize(("low", "p_value"), [(0.0, 0.03), (-0.02, 0.049), (0.02, 0.05), (0.3, 0.06)])
def test_interval_and_p_value_that_disagree_are_said_to(low: float, p_value: float) -> None:
    verdict = judge(evidence(low, p_value=p_value))
    assert verdict.level == "weak"
    assert "interval and p-value disagree" in verdict.sentence


def test_a_small_p_value_of_a_reversed_ranking_does_not_help_it() -> None:
    verdict = judge(evidence(-0.8, high=0.1, p_value=0.03))
    assert verdict.level == "guessing"
    assert "p = 0.030" in verdict.sentence


def test_strong_order_does_not_name_the_winner_without_the_top() -> None:
    for weak_top in (evidence(0.8, top=0.2), evidence(0.8, regret=0.05)):
        assert "train its best few on real data" in judge(weak_top).sentence


def test_a_reversed_ranking_is_called_that() -> None:
    verdict = judge(evidence(-0.9, high=-0.3))
    assert verdict.level == "guessing"
    assert "wrong way round" in verdict.sentence


def test_few_pairs_give_no_verdict_however_perfect() -> None:
    verdict = judge(evidence(1.0, high=1.0, n=9))
    assert verdict.level == "not enough data"
    assert "only 9 architectures have both a score and a reference score" in verdict.sentence
    assert "at least 10 are needed (Spearman 1.00); a run is added to by searching" in verdict.sentence


@pytest.mark.parametrize(
    ("low", "level"), [(-0.1, "reference at chance"), (0.1, "reference at chance"), (0.5, "moderate")]
)
def test_an_order_of_luck_gives_no_verdict_but_to_a_ruler_that_agrees_with_it(low: float, level: str) -> None:
    assert judge(replace(evidence(low), luck="it is luck.")).level == level


def test_no_reference_and_no_coefficient() -> None:
    assert judge(None).level == "no reference"
    nothing = Statistic(value=None, n=2, reason="not enough data (n = 2)")
    verdict = judge(Evidence(spearman=nothing, interval=None, p_value=None, top=nothing, pick=None))
    assert verdict.level == "not enough data"
    assert verdict.sentence == (
        "No verdict: not enough data, only 2 architectures have both a score and a reference score and at "
        "least 10 are needed; a run is added to by searching with --resume and more --samples, or more "
        "--reference-samples where they are fewer."
    )
    alone = Statistic(value=None, n=1, reason="not enough data (n = 1)")
    one = judge(Evidence(spearman=alone, interval=None, p_value=None, top=alone, pick=None))
    assert "only 1 architecture has both a score" in one.sentence


def test_regret_is_put_beside_a_random_pick_in_the_given_unit() -> None:
    verdict = judge(evidence(0.5, regret=0.02), show=lambda gap: f"{100 * gap:.1f} points")
    assert (
        "its pick is 2.0 points below the best of all 48 (a random one: 10.0 points below)"
        in verdict.sentence
    )


def test_a_free_ruler_that_does_as_well_is_named() -> None:
    better = Evidence(**{**vars(evidence(0.5)), "parameters": 0.75})
    worse = Evidence(**{**vars(evidence(0.5)), "parameters": 0.2})
    assert "counting parameters, at no cost, reaches 0.75" in judge(better).sentence
    assert "parameters" not in judge(worse).sentence
    lost = replace(evidence(-0.3, high=0.5), parameters=0.28)  # of 48 up to .29 is luck
    assert "parameters" not in judge(lost).sentence
    assert "parameters, at no cost, reaches 0.29" in judge(replace(lost, parameters=0.29)).sentence
    few = {**vars(evidence(0.5)), "top": Statistic(value=-0.87, n=3)}
    assert "among the best 20%" not in judge(Evidence(**few)).sentence
    assert "among the best 20%" in judge(Evidence(**few | {"top": Statistic(value=-0.87, n=5)})).sentence


@pytest.mark.parametrize(
    ("rho_s", "in_order", "survives"), [(MODERATE_FROM, 0.63, 0.82), (STRONG_FROM, 0.75, 0.98)]
)
def test_thresholds_mean_what_their_reasons_say(rho_s: float, in_order: float, survives: float) -> None:
    r = 2 * math.sin(math.pi * rho_s / 6)
    assert 0.5 + math.asin(r) / math.pi == pytest.approx(in_order, abs=0.01)
    rng = np.random.default_rng(0)
    y = rng.normal(size=400_000)
    x = r * y + math.sqrt(1 - r * r) * rng.normal(size=len(y))
    best = y >= np.quantile(y, 0.95)
    assert np.mean(x[best] > 0) == pytest.approx(survives, abs=0.01)

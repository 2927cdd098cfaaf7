"""Rulers against one another: paired, with p-values that hold their level alone and together."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from reports import read_run, write_report
from reports.analysis import analyse
from reports.bootstrap import Difference, spearman_difference, spearman_interval, two_sided_p_value
from reports.rulers import LEVEL, compare_rulers, holm, summarise
from reports.words import describe_difference

MakeRun = Callable[..., Path]


def rivals(n: int, rng: np.random.Generator, **noise: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A reference, and rulers that are it plus noise of the given size each."""
    y = rng.normal(size=n)
    return {name: y + size * rng.normal(size=n) for name, size in noise.items()}, y


def test_the_p_value_counts_resamples_on_either_side_of_zero() -> None:
    assert two_sided_p_value(np.array([1.0, 2.0, 3.0, np.nan])) == pytest.approx(2 * 1 / 4)
    assert two_sided_p_value(np.array([-1.0, 2.0, 3.0, 4.0, 5.0])) == pytest.approx(2 * 2 / 6)
    assert two_sided_p_value(np.zeros(10)) == 1.0
    assert two_sided_p_value(np.array([np.nan])) is None


def test_equal_rulers_are_called_different_as_often_as_the_level_says() -> None:
    # 300 simulations put 5% within 5% +- 3 sqrt(.05 .95 / 300) = 1.2% to 8.8%.
    rng = np.random.default_rng(20)
    found = []
    for _ in range(300):
        rulers, y = rivals(40, rng, a=1.0, b=1.0)
        found.append(spearman_difference(rulers["a"], rulers["b"], y, rng=rng, resamples=500))
    rejected = [each.p_value is not None and each.p_value < LEVEL for each in found]
    assert 0.012 <= np.mean(rejected) <= 0.088
    left_out = [not each.interval.low <= 0 <= each.interval.high for each in found if each.interval]
    assert np.mean(np.equal(rejected, left_out)) > 0.98  # interval and p-value say the same


def test_pairing_finds_a_difference_that_separate_intervals_hide() -> None:
    rng = np.random.default_rng(3)
    y, shared = rng.normal(size=(2, 60))
    good = y + 0.7 * shared
    bad = good + 0.8 * rng.normal(size=60)
    found = compare_rulers({"good": good, "bad": bad}, "good", y)["bad"]
    apart = [spearman_interval(x, y, rng=rng) for x in (bad, good)]
    assert apart[0] is not None
    assert apart[1] is not None
    assert apart[0].high > apart[1].low
    rhos = [scipy.stats.spearmanr(x, y).statistic for x in (bad, good)]
    assert found.value == pytest.approx(rhos[0] - rhos[1])
    assert found.interval is not None
    assert found.interval.high < 0
    assert found.p_value == found.p_holm
    assert found.p_value is not None
    assert found.p_value < LEVEL


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_the_closure_of_bonferroni(seed: int) -> None:
    """Marcus, Peritz and Gabriel 1976: the largest Bonferroni p of all sets of hypotheses that hold it."""
    p = (np.random.default_rng(seed).random(6) ** 3).round(3 - seed % 2).tolist()
    sets = [s for size in range(1, 7) for s in itertools.combinations(range(6), size)]
    closed = [max(min(1.0, len(s) * min(p[j] for j in s)) for s in sets if i in s) for i in range(6)]
    assert holm(p) == pytest.approx(closed)


def test_holm_of_a_known_example_and_of_nothing() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_the_level_holds_over_all_comparisons_together() -> None:
    # At most 5% + 3 sqrt(.05 .95 / 120) = 11% of reports may call any of six equal rulers different.
    rng = np.random.default_rng(11)
    wrong, uncorrected = 0, 0
    for _ in range(120):
        rulers, y = rivals(30, rng, **dict.fromkeys("abcdefg", 1.0))
        found = compare_rulers(rulers, "a", y).values()
        wrong += any(each.p_holm is not None and each.p_holm < LEVEL for each in found)
        uncorrected += any(each.p_value is not None and each.p_value < LEVEL for each in found)
    assert wrong / 120 <= 0.11
    assert uncorrected > wrong


def test_a_p_value_can_reach_the_level_however_many_rulers_there_are() -> None:
    rng = np.random.default_rng(0)
    rulers, y = rivals(40, rng, **{f"r{i}": 0.1 if i == 0 else 5.0 for i in range(60)})
    found = compare_rulers(rulers, "r0", y)
    assert max(each.p_holm or 0.0 for each in found.values()) < LEVEL


def test_a_comparison_does_not_depend_on_which_others_are_made() -> None:
    rulers, y = rivals(40, np.random.default_rng(4), a=1.0, b=1.0, c=9.0)
    alone = compare_rulers({name: rulers[name] for name in "ab"}, "a", y)["b"]
    beside = compare_rulers({name: rulers[name] for name in "cba"}, "a", y)["b"]
    assert (alone.interval, alone.p_value) == (beside.interval, beside.p_value)


def test_the_untested_have_a_difference_and_an_interval_alone() -> None:
    rng = np.random.default_rng(4)
    rulers, y = rivals(40, rng, a=1.0, b=1.0, c=9.0, fitted=0.1)
    found = compare_rulers(rulers, "a", y, untested={"fitted", "absent"})
    assert (found["fitted"].p_value, found["fitted"].p_holm) == (None, None)
    assert found["fitted"].interval is not None
    tested = [found[name].p_value for name in "bc"]
    assert [found[name].p_holm for name in "bc"] == holm(tested)  # type: ignore[arg-type]
    summary = summarise(found, "a", {name: name for name in rulers}, 40)
    assert summary is not None
    assert (summary.compared, summary.better) == (2, [])


def test_many_scores_take_no_more_than_their_share_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(
        "reports.rulers.spearman_difference",
        lambda *_, resamples, **__: (made.append(resamples), Difference(value=0.0, n=9, interval=None))[1],
    )
    for count in (5, 50, 3000):
        rulers = {f"r{i}": np.arange(12.0) for i in range(count + 1)}
        compare_rulers(rulers, "r0", np.arange(12.0))
        assert len(made) == count
        assert set(made) == {min(20_000, max(2_000, 200 * count))}
        made.clear()


def test_too_few_pairs_have_a_difference_but_no_interval_and_no_p_value() -> None:
    rng = np.random.default_rng(5)
    rulers, y = rivals(9, rng, a=1.0, b=1.0, flat=0.0)
    rulers["flat"] = np.ones(9)
    found = compare_rulers(rulers, "a", y)
    assert found["b"].value is not None
    assert (found["b"].interval, found["b"].p_value, found["b"].p_holm) == (None, None, None)
    assert describe_difference(found["b"]) == f"{found['b'].value:+.2f}"
    assert found["flat"].reason == "all scores are equal"
    summary = summarise(found, "a", {"a": "A", "b": "B", "flat": "F"}, 9)
    assert summary is not None
    assert summary.compared == 0
    assert summary.sentence.startswith("Too few architectures (n = 9) to compare other rulers with A")


def test_the_sentence_names_who_is_better_and_who_worse() -> None:
    rng = np.random.default_rng(6)
    rulers, y = rivals(80, rng, mine=1.0, best=0.1, bad=9.0, like=1.0)
    found = compare_rulers(rulers, "mine", y)
    summary = summarise(found, "mine", {name: name.upper() for name in rulers}, 80)
    assert summary is not None
    assert (summary.better, summary.worse, summary.compared) == (["best"], ["bad"], 3)
    assert summary.sentence == (
        "Of 3 other rulers on the same architectures 1 agrees better with the reference than MINE (BEST); "
        "1 agrees worse (BAD); 1 cannot be told apart from it (paired bootstrap, p below 0.05 corrected by "
        "Holm for 3 comparisons)."
    )
    assert summarise({}, "mine", {}, 80) is None


def test_the_report_compares_every_ruler_with_the_one_that_ranks(make_run: MakeRun) -> None:
    report = analyse(read_run(make_run()))
    first, *others = report.scores
    assert first.difference is None
    assert report.rulers is not None
    assert report.rulers.against == first.name
    by_name = {score.name: score.difference for score in others}
    loss = by_name["final_training_loss"]
    assert loss is not None
    assert (loss.value, loss.n, loss.p_holm) == (0.0, 18, 1.0)  # the same order, turned round
    flat = by_name["seconds"]
    assert flat is not None
    assert (flat.value, flat.reason) == (None, "all scores are equal")
    assert report.rulers.compared == 1
    assert analyse(read_run(make_run("other", reference={"kind": "none"}))).rulers is None


@pytest.mark.usefixtures("without_drawing")
def test_the_pages_say_it_and_the_numbers_hold_it(make_run: MakeRun) -> None:
    folder = make_run()
    report = write_report(folder).report
    assert report.rulers is not None
    for name in ("index.html", "report.md"):
        text = (folder / "report" / name).read_text(encoding="utf-8")
        assert "Of 2 other rulers on the same architectures" in text
        assert "p (Holm)" in text
        assert "corrected by Holm for all comparisons in the table" in text
    numbers = json.loads((folder / "report" / "report.json").read_text())
    loss = next(score for score in numbers["scores"] if score["name"] == "final_training_loss")
    assert loss["difference"]["interval"] == {"low": 0.0, "high": 0.0, "confidence": 0.95}
    assert numbers["rulers"]["sentence"] == report.rulers.sentence

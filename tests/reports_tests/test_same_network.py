"""Architectures that are one network by several names: statistics count the network, not its names."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from reports import Report, read_run, write_report
from reports.analysis import analyse
from reports.bootstrap import resample_blocks, spearman_difference, spearman_interval
from reports.combining import FEWEST, out_of_fold
from reports.comparison import compare_runs
from reports.correlation import number_networks, spearman, spearman_p_value
from reports.costs import measured_costs, seconds_each
from reports.noise import measure_noise
from reports.ranking import ruler_scores
from reports.rulers import compare_rulers
from reports.savings import measure_savings
from reports.scores import FITTED, repeat_of
from reports.selection import top_networks
from reports.weighted_tau import weighted_tau_interval

Floats = np.ndarray
Make = Callable[..., Path]


def names_of(networks: int, names: int, rng: np.random.Generator) -> np.ndarray:
    """Which network each of the names is; some networks have many, as in NAS-Bench-201."""
    share = 1 / np.sqrt(np.arange(1, networks + 1))
    more = rng.choice(networks, size=names - networks, p=share / share.sum())
    return rng.permutation(np.concatenate([np.arange(networks), more]))


def correlated(group: np.ndarray, rho_s: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Scores that names share and references that they nearly share, bivariate normal over networks."""
    r = 2 * math.sin(math.pi * rho_s / 6)
    x = rng.normal(size=group.max() + 1)
    y = r * x + math.sqrt(1 - r * r) * rng.normal(size=len(x))
    return x[group], y[group] + 0.05 * rng.normal(size=len(group))


@pytest.mark.parametrize("rho_s", [0.0, 0.7])
def test_intervals_hold_their_level_only_if_networks_are_drawn(rho_s: float) -> None:
    # 300 simulations put a coverage of .95 within .95 +- 3 sqrt(.95 .05 / 300) = .912 to .988.
    rng = np.random.default_rng([1, int(10 * rho_s)])
    held, by_names = [], []
    for _ in range(300):
        group = names_of(30, 60, rng)
        x, y = correlated(group, rho_s, rng)
        for found, networks in ((held, group), (by_names, None)):
            interval = spearman_interval(x, y, rng=rng, networks=networks, resamples=400)
            assert interval is not None
            found.append(interval.low <= rho_s <= interval.high)
    assert 0.912 <= np.mean(held) <= 0.988
    assert np.mean(by_names) < 0.88


def test_equal_rulers_are_seldom_told_apart() -> None:
    # At p < .05, 300 simulations find 5% within .05 + 3 sqrt(.05 .95 / 300) = .088.
    rng = np.random.default_rng(2)
    found, by_names = [], []
    for _ in range(300):
        group = names_of(30, 60, rng)
        quality = rng.normal(size=30)
        first, second = (
            (quality + rng.normal(size=30))[group],
            (quality + rng.normal(size=30))[group],
        )
        y = quality[group]
        for ps, networks in ((found, group), (by_names, None)):
            difference = spearman_difference(first, second, y, rng=rng, networks=networks, resamples=400)
            assert difference.p_value is not None
            ps.append(difference.p_value < 0.05)
    assert np.mean(found) < 0.088
    assert np.mean(by_names) > 0.12


def test_every_resample_holds_all_names_of_a_network_or_none() -> None:
    group = np.array([0, 1, 0, 2, 2, 2])
    (counts,) = resample_blocks(group, 500, np.random.default_rng(3))
    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts[:, 3:] == counts[:, [3]]).all()
    assert (counts[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert len(np.unique(counts.sum(axis=1))) > 1


def test_different_networks_change_nothing() -> None:
    """To the bit, whatever they are called."""
    rng = np.random.default_rng(4)
    x, y = correlated(np.arange(25), 0.5, rng)
    z, names = y + rng.normal(size=25), [f"n{i}" for i in rng.permutation(25)]
    x[3] = np.nan
    for each in (
        lambda networks: spearman_interval(x, y, rng=np.random.default_rng(0), networks=networks),
        lambda networks: spearman_difference(x, z, y, rng=np.random.default_rng(0), networks=networks),
        lambda networks: spearman_p_value(x, y, rng=np.random.default_rng(0), networks=networks),
        lambda networks: weighted_tau_interval(x, y, rng=np.random.default_rng(0), networks=networks),
        lambda networks: out_of_fold([x, z], y, rng=np.random.default_rng(0), networks=networks).tobytes(),
    ):
        assert each(names) == each(None)


def test_networks_are_numbered_as_they_appear() -> None:
    kept = np.array([True, False, True, True, True])
    assert number_networks(["b", "z", "a", "b", "c"], kept).tolist() == [0, 1, 0, 2]
    assert number_networks(None, kept).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("networks", [6, 20, 40])
def test_the_p_value_is_that_of_the_means(networks: int) -> None:
    rng = np.random.default_rng([5, networks])
    group = names_of(networks, 2 * networks, rng)
    x, y = correlated(group, 0.4, rng)
    _, first = np.unique(group, return_index=True)
    order = group[np.sort(first)]
    means = [np.array([values[group == network].mean() for network in order]) for values in (x, y)]
    expected = spearman_p_value(*means, rng=np.random.default_rng(0))
    found = spearman_p_value(x, y, rng=np.random.default_rng(0), networks=group)
    assert found == expected
    assert found is not None
    alone = spearman_p_value(x, y, rng=np.random.default_rng(0))
    assert alone is not None
    assert found.value != alone.value


def test_no_interval_of_nine_networks_by_whatever_many_names() -> None:
    rng = np.random.default_rng(6)
    group = names_of(9, 40, rng)
    x, y = correlated(group, 0.5, rng)
    assert spearman_interval(x, y, rng=rng, networks=group) is None
    assert weighted_tau_interval(x, y, rng=rng, networks=group) is None
    found = compare_rulers({"a": x, "b": -x}, "a", y, networks=group)["b"]
    assert (found.interval, found.p_value, found.p_holm, found.n) == (None, None, None, 40)


def test_the_fit_never_saw_another_name_of_what_it_predicts() -> None:
    """Mean over 60 samples of noise: 0 within 3.5 standard errors of .17 / sqrt(60), .08; .15 by names."""
    found, by_names = [], []
    for seed in range(60):
        rng = np.random.default_rng([7, seed])
        group = names_of(71, 100, rng)
        scores = list(rng.normal(size=(6, 71))[:, group])
        y = rng.normal(size=71)[group] + 0.05 * rng.normal(size=100)
        for values, networks in ((found, group), (by_names, None)):
            rho = spearman(out_of_fold(scores, y, rng=rng, networks=networks), y).value
            assert rho is not None
            values.append(rho)
    assert abs(np.mean(found)) < 0.08
    assert np.mean(by_names) > 0.1


def test_the_fit_takes_networks_not_names() -> None:
    rng = np.random.default_rng(8)
    group = names_of(FEWEST - 1, 60, rng)
    x, y = correlated(group, 0.5, rng)
    with pytest.raises(ValueError, match=f"a fit takes {FEWEST} networks .*, not {FEWEST - 1}"):
        out_of_fold([x, -x], y, rng=rng, networks=group)


def test_networks_among_the_best() -> None:
    x, y = np.arange(10.0), np.array([9.0, 8, 7, 6, 5, 4, 3, 2, 1, np.nan])
    networks = ["a", "a", "b", "b", "c", "d", "e", "f", "g", "h"]
    assert top_networks(x, y, 0.2, networks) == 1
    assert top_networks(x, y, 0.3, networks) == 2
    assert top_networks(x, y * np.nan, 0.3, networks) == 0


@pytest.fixture
def named(fabricated: Any, trial: Any, info: Any, tmp_path: Path) -> Make:
    """A run of 60 names of some networks, each trained once, twice by two scores; by `order`, as proposed."""

    def make(name: str, networks: int, *, order: Sequence[int] | None = None, seed: int = 0) -> Path:
        rng = np.random.default_rng(networks)
        group = np.concatenate([np.arange(networks), rng.integers(networks, size=60 - networks)])
        quality = rng.normal(size=networks)
        measured = quality + 0.3 * np.random.default_rng([1, seed]).normal(size=networks)
        first: dict[int, str] = {}
        same = {}
        proxy, real = [], []
        for i in order if order is not None else range(60):
            if group[i] in first:
                same[f"a{i}"] = first[group[i]]
            first.setdefault(group[i], f"a{i}")
            accuracy = 0.5 + measured[group[i]] / 20
            scores = {"validation_accuracy": accuracy, "final_training_loss": 1 - quality[group[i]] ** 3 / 9}
            scores["synflow"] = accuracy + quality[group[i]] / 40
            proxy.append(trial(f"a{i}", {**scores, **repeats(accuracy)}))
            real.append(trial(f"a{i}", {"test_accuracy": 0.8 + quality[group[i]] / 50 + i / 10**5}))
        return Path(fabricated(proxy, real, info(same=same, seed=seed)).write(tmp_path / name))

    return make


def repeats(accuracy: float) -> dict[str, float]:
    """Of two trainings, which differ by what looks like noise and has nothing to do with the name."""
    noise = math.sin(1e4 * accuracy) / 40
    return {
        repeat_of("validation_accuracy", 1): accuracy - noise,
        repeat_of("validation_accuracy", 2): accuracy + noise,
    }


def text_of(folder: Path) -> str:
    return (folder / "report" / "report.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("without_drawing")
def test_a_few_networks_by_many_names_get_no_verdict(named: Make) -> None:
    folder = named("few", 6)
    report = write_report(folder).report
    assert report.verdict.level == "not enough data"
    assert report.verdict.sentence.startswith(
        "No verdict: not enough data, only 60 architectures, 6 networks by several names, have both a score "
        "and a reference score and at least 10 different ones are needed (Spearman 0."
    )
    found = report.default.spearman
    assert (found.n, found.networks, found.low, found.high) == (60, 6, None, None)
    assert {score.difference.p_holm for score in report.scores[1:] if score.difference} == {None}
    assert report.rulers is not None
    assert "Too few architectures (n = 6) to compare other rulers" in report.rulers.sentence
    assert FITTED not in [score.name for score in report.scores]
    assert "with every score and a reference, and there are 6." in text_of(folder)
    assert "can be told from 10 architectures, these are 6." in text_of(folder)


@pytest.mark.usefixtures("without_drawing")
def test_it_is_said_where_names_are_not_compared(make_run: Any) -> None:
    said = "In this space names are not compared"
    for name, told in (("hub:mobilenetv3", True), ("my_spaces.py:Blocks", True), ("convnet", False)):
        space = {"name": name, "options": {}, "size": 9, "fitting": 9}
        folder = make_run(name.replace(":", "-"), space=space)
        assert any(note.startswith(said) for note in analyse(read_run(folder)).notes) == told


def test_pages_say_of_how_many_networks(named: Make) -> None:
    folder = named("many", 40)
    report = write_report(folder).report
    assert report.verdict.level in ("moderate", "strong")
    assert "n = 60 names of 40 networks, p" in report.verdict.sentence
    assert "Intervals, p-values and the fit count networks." in text_of(folder)
    assert report.repeats is not None
    assert report.repeats.single.n == 40
    assert report.networks is not None
    assert (report.networks.n, report.networks.networks) == (40, None)
    assert FITTED in [score.name for score in report.scores]


def test_nothing_is_measured_of_names_that_were_not_trained(named: Make) -> None:
    run = read_run(named("many", 40))
    for name in ("seconds", "peak_memory_mb"):
        known = ruler_scores(run, name).notna()
        assert known.sum() == 40
        assert set(run.trials["architecture"][~known]) == set(run.info.same)
    assert ruler_scores(run, "validation_accuracy").notna().all()


def test_costs_are_those_of_networks_whichever_names_have_a_reference(
    fabricated: Any, trial: Any, info: Any, tmp_path: Path
) -> None:
    """Ten networks of two names: the first pays for the proxy, the second has the reference."""
    scores = {"validation_accuracy": 0.5, "synflow": 1.0}
    firsts, seconds = [f"a{i}" for i in range(10)], [f"b{i}" for i in range(10)]
    proxy = [trial(name, scores, seconds=4.0) for name in firsts]
    proxy += [trial(name, scores, seconds=0.01) for name in seconds]
    real = [trial(name, {"test_accuracy": 0.5}, seconds=20.0) for name in seconds]
    described = info(same=dict(zip(seconds, firsts, strict=True)))
    run = read_run(fabricated(proxy, real, described).write(tmp_path / "run"))
    savings = measure_savings(measured_costs(run, "validation_accuracy"))
    assert (savings.pairs, savings.proxy_seconds_each, savings.reference_seconds_each) == (10, 4.0, 20.0)
    assert savings.speedup_search == 5.0
    assert savings.speedup_total == 200.0 / (100.0 + 40.0)
    assert savings.break_even_architectures == 100.0 / 16.0
    assert savings.proxy_seconds == pytest.approx(40.1)
    assert seconds_each(run, "validation_accuracy") == 4.0


def reports_of(folders: Sequence[Path]) -> tuple[list[Any], list[Report]]:
    runs = [read_run(folder) for folder in folders]
    return runs, [analyse(run) for run in runs]


def test_runs_side_by_side_draw_networks_too(named: Make) -> None:
    runs, reports = reports_of([named("one", 12), named("two", 12, seed=1)])
    labels = ["one", "two"]
    difference = compare_runs(runs, reports, labels)[1].difference
    assert difference is not None
    assert difference.interval is not None
    few = compare_runs(*reports_of([named("three", 7), named("four", 7, seed=1)]), labels)[1].difference
    assert few is not None
    assert few.value is not None
    assert (few.n, few.interval, few.p_value) == (60, None, None)


def test_noise_counts_a_network_once_by_whatever_name_a_run_met_first(named: Make) -> None:
    """The second run meets the names in the other order, so it calls most networks otherwise."""
    folders = [named("one", 30), named("two", 30, order=range(59, -1, -1), seed=1)]
    runs, reports = reports_of(folders)
    (noise,) = measure_noise(runs, reports, ["one", "two"])
    assert noise.reference is not None
    assert noise.reference.single.n == 30
    columns = []
    for run in runs:
        scores = run.trials.set_index("architecture")["score:validation_accuracy"]
        columns.append(scores[[f"a{i}" for i in range(30)]])
    expected = scipy.stats.spearmanr(*columns).statistic
    assert noise.proxies[0].reliability.single.value == pytest.approx(expected)
    assert expected < 0.99

"""Combinations in the report: which scores, what they cost, what is said of them, how they are compared."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from reports import Report, read_run, write_report
from reports.analysis import analyse
from reports.combinations import combine, ranked
from reports.scores import FITTED, MEAN_OF_RANKS

Made = Callable[..., Path]
TOO_FEW = "a fit takes 20 different networks with every score and a reference, and there are 19"
RECORDED = ("validation_accuracy", "final_training_loss", "parameters", "zico")


@pytest.fixture
def make(fabricated: Any, trial: Any, info: Any, tmp_path: Path) -> Made:
    """A run whose scores are the reference plus noise, the loss turned round; parameters are pure noise."""

    def write(
        name: str = "run",
        *,
        count: int = 40,
        references: int | None = None,
        kind: str = "real",
        **changes: Any,
    ) -> Path:
        rng = np.random.default_rng(4)
        quality = rng.normal(size=count)
        measured = {score: quality + rng.normal(size=count) for score in RECORDED}
        measured["final_training_loss"] *= -1
        measured["parameters"] = rng.permutation(count) * 1000.0
        proxy = [
            trial(
                f"a{i}",
                {score: float(values[i]) for score, values in measured.items()},
                seconds=2.0 + i / 100,
            )
            for i in range(count)
        ]
        real = [trial(f"a{i}", {"test_accuracy": float(x)}, seconds=9.0) for i, x in enumerate(quality)]
        used = real[: count if references is None else references] if kind == "real" else []
        return Path(fabricated(proxy, used, info(kind, **changes)).write(tmp_path / name))

    return write


def columns_of(report: Report, folder: Path) -> Mapping[str, list[float]]:
    with (folder / "report" / "ranking.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = ("reference", *(name for name in rows[0] if name in {score.name for score in report.scores}))
    return {name: [float(row[name]) if row[name] else np.nan for row in rows] for name in names}


@pytest.mark.usefixtures("without_drawing")
def test_both_are_rulers_marked_as_combinations_and_compared(make: Made) -> None:
    folder = make()
    report = write_report(folder).report
    found = {score.name: score for score in report.scores}
    assert [name for name, score in found.items() if score.combination] == [
        name for name in found if name in (MEAN_OF_RANKS, FITTED)
    ]
    assert all("combination: " in found[name].label for name in (MEAN_OF_RANKS, FITTED))
    columns = columns_of(report, folder)
    own = scipy.stats.spearmanr(columns["validation_accuracy"], columns["reference"]).statistic
    for name in (MEAN_OF_RANKS, FITTED):
        rho = scipy.stats.spearmanr(columns[name], columns["reference"]).statistic
        assert found[name].spearman.value == pytest.approx(rho)
        difference = found[name].difference
        assert difference is not None
        assert (difference.value, difference.n) == (pytest.approx(rho - own), 40)
        assert (difference.p_holm is None) == (name == FITTED)
        assert difference.interval is not None
        assert found[name].spearman.low is not None
    assert report.rulers is not None
    assert report.rulers.compared == len([s for s in report.scores if s.difference and s.difference.p_value])
    assert report.rulers.compared >= 5
    best = scipy.stats.rankdata(columns["validation_accuracy"]) - scipy.stats.rankdata(
        columns["final_training_loss"]
    )
    assert scipy.stats.spearmanr(best, columns[MEAN_OF_RANKS]).statistic == pytest.approx(1.0)


def test_a_fit_has_an_interval_but_no_p_value_of_its_own(make: Made) -> None:
    found = {score.name: score.spearman for score in analyse(combine(read_run(make()))).scores}
    assert (found[FITTED].p_value, found[FITTED].p_method) == (None, None)
    assert found[FITTED].high is not None
    assert found[MEAN_OF_RANKS].p_value is not None


def test_the_default_is_one_score_a_kind_and_a_fit_has_what_is_counted_too(make: Made) -> None:
    mean, fitted = combine(read_run(make())).combinations
    assert mean.components == ["final_training_loss", "validation_accuracy"]
    assert fitted.components == ["final_training_loss", "validation_accuracy", "parameters"]
    assert (mean.fitted, fitted.fitted, mean.n, fitted.n) == (False, True, 40, 40)
    assert "fitted on nothing, it needs no reference scores" in mean.sentence
    assert "It needs reference scores" in fitted.sentence


def test_named_scores_are_combined_in_both_ways(make: Made) -> None:
    run = combine(read_run(make()), ["zico", "parameters", "zico", "seconds"])
    assert [each.components for each in run.combinations] == [["zico", "parameters", "seconds"]] * 2
    ranks = sum(
        scipy.stats.rankdata(run.trials[column]) for column in ("score:zico", "score:parameters", "seconds")
    )
    assert run.trials[f"score:{MEAN_OF_RANKS}"].tolist() == pytest.approx((ranks / 120).tolist())


@pytest.mark.usefixtures("without_drawing")
def test_a_weight_is_of_the_mean_and_is_told(make: Made) -> None:
    folder = make()
    report = write_report(folder, score=MEAN_OF_RANKS, combine=["zico=3", "validation_accuracy"]).report
    mean, fitted = report.combinations
    assert (mean.components, mean.weights) == (["zico", "validation_accuracy"], [3.0, 1.0])
    assert (fitted.components, fitted.weights) == (mean.components, None)
    columns = columns_of(report, folder)
    ranks = 3 * scipy.stats.rankdata(columns["zico"]) + scipy.stats.rankdata(columns["validation_accuracy"])
    assert columns[MEAN_OF_RANKS] == pytest.approx((ranks / 160).tolist())
    text = (folder / "report" / "report.md").read_text(encoding="utf-8")
    assert "Ranked by: combination: mean of ranks of 3 x ZiCo, validation accuracy" in text
    assert "ombination: mean of ranks, of 3 x ZiCo, validation accuracy: fitted on nothing" in text
    assert "fitted, out of fold, of ZiCo, validation accuracy" in text
    numbers = json.loads((folder / "report" / "report.json").read_text())
    assert [each["weights"] for each in numbers["combinations"]] == [[3.0, 1.0], None]


def test_none_are_made_if_none_are_wanted_or_only_one_score_is_there(make: Made, make_run: Made) -> None:
    run = read_run(make())
    assert combine(run, ()).combinations == ()
    assert combine(combine(run), ()).score_names == run.score_names
    alone = read_run(make_run("alone", failed=20))  # nothing was scored
    assert combine(alone).combinations == ()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["zico", "zicoo"], "run run has no score 'zicoo': did you mean zico"),
        (
            ["zico", "mean_of_ranks"],
            "no score 'mean_of_ranks': it is the mean of several other scores' ranks",
        ),
        (["zico", "zico"], "at least two scores, not 'zico' alone"),
        (["zico=2", "zicoo=2"], "run run has no score 'zicoo'"),
        (["zico=0", "parameters"], "the weight of zico must be a number from"),
    ],
)
def test_wrong_names_are_refused(make: Made, names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_report(make(), combine=names)


def test_where_none_are_combined_their_mean_ranks_nothing(make: Made) -> None:
    with pytest.raises(ValueError, match=r"and here none are combined \(--combine A,B\); choose from valid"):
        write_report(make(), score=MEAN_OF_RANKS, combine=())


@pytest.mark.usefixtures("without_drawing")
def test_too_few_references_leave_the_fit_out_and_say_so(make: Made) -> None:
    folder = make(references=19)
    report = write_report(folder).report
    assert FITTED not in {score.name for score in report.scores}
    mean, fitted = report.combinations
    assert fitted.reason == TOO_FEW
    assert (mean.reason, mean.n, fitted.n) == (None, 40, 19)
    for name in ("index.html", "report.md"):
        assert f"left out, {TOO_FEW}." in (folder / "report" / name).read_text(encoding="utf-8")


def test_without_a_reference_there_is_no_fit(make: Made) -> None:
    run = combine(read_run(make(kind="none")))
    assert [each.name for each in run.combinations] == [MEAN_OF_RANKS]


def test_what_they_cost(make: Made) -> None:
    run = combine(read_run(make()))
    found = {score.name: score.seconds_each for score in analyse(run).scores}
    assert found[MEAN_OF_RANKS] == found["validation_accuracy"] == pytest.approx(2.195)
    assert found[FITTED] is None  # that of the reference depends on how many are trained
    run.trials["score:synflow"] = run.trials["score:zico"]
    run.trials["cpu_seconds:synflow"] = run.trials["seconds:synflow"] = 0.5
    again = {score.name: score.seconds_each for score in analyse(combine(run)).scores}
    assert again[MEAN_OF_RANKS] == pytest.approx(2.695)
    counted = combine(run, ["parameters", "synflow"])
    assert {s.name: s.seconds_each for s in analyse(counted).scores}[MEAN_OF_RANKS] == 0.5


@pytest.mark.usefixtures("without_drawing")
@pytest.mark.parametrize(
    ("score", "order"),
    [("validation_accuracy", ["b", "d", "a", "c"]), ("validation_loss", ["a", "c", "d", "b"])],
)
def test_a_ranking_begins_with_the_best_and_of_equals_with_the_first(
    fabricated: Any, trial: Any, info: Any, tmp_path: Path, score: str, order: list[str]
) -> None:
    scored = [trial(name, {score: value}) for name, value in zip("abcd", (0.5, 0.9, 0.5, 0.7), strict=True)]
    folder = fabricated([*scored, trial("e", None)], [], info("none", score=score)).write(tmp_path / "run")
    assert ranked(folder) == order


def test_a_mean_of_ranks_can_rank_and_a_fit_cannot(make: Made) -> None:
    folder = make()
    report = write_report(folder, score=MEAN_OF_RANKS).report
    assert report.default.name == MEAN_OF_RANKS
    assert report.default.spearman.n == 40
    with pytest.raises(ValueError, match="fitted_combination is known only where the reference is"):
        write_report(folder, score=FITTED)


@pytest.mark.usefixtures("without_drawing")
def test_pages_and_numbers_say_what_they_are(make: Made) -> None:
    folder = make()
    report = write_report(folder).report
    numbers = json.loads((folder / "report" / "report.json").read_text())
    assert [each["name"] for each in numbers["combinations"]] == [MEAN_OF_RANKS, FITTED]
    for name in ("index.html", "report.md"):
        text = (folder / "report" / name).read_text(encoding="utf-8").replace("&#39;", "'")
        assert all(each.sentence in text for each in report.combinations)
        assert "Combinations are made of recorded scores" in text
    again = write_report(folder).report
    assert again == report
    plain = make("plain")
    write_report(plain, combine=())
    assert "ombination" not in (plain / "report" / "report.md").read_text(encoding="utf-8")


def test_a_recorded_score_of_their_name_is_no_combination(
    fabricated: Any, trial: Any, info: Any, tmp_path: Path
) -> None:
    scores = [{"validation_accuracy": i / 9, FITTED: float(i), MEAN_OF_RANKS: 1.0} for i in range(9)]
    proxy = [trial(f"a{i}", each) for i, each in enumerate(scores)]
    run = read_run(fabricated(proxy, [], info()).write(tmp_path / "odd"))
    assert combine(run).score_names == ["validation_accuracy"]

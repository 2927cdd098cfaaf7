"""Searches that stop trainings early and rank by a mean of ranks: who goes on, and at what place."""

import json
from collections.abc import Container, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scipy.stats import rankdata
from search_helpers import interrupt
from trial_helpers import stored

from atom_nas.asha import Race, Step, _Course
from atom_nas.engines.base import OVERDUE
from atom_nas.estimators import _untrained
from atom_nas.halving import EPOCHS, PLACE
from atom_nas.resuming import resumed
from atom_nas.run_folder import CHECKPOINTS, read_record
from atom_nas.search import SearchSettings, run_search
from atom_nas.stage import Progress
from atom_nas.strategies import AshaConfig
from atom_nas.trials import TrialStore
from reports import write_report
from reports.analysis import analyse
from reports.costs import ranked_by
from reports.rungs import places, ranked_so_far, worths
from reports.runs import read_run
from reports.scores import MEAN_OF_RANKS, describe_score

Ran = list[tuple[str, str]]
PARTS = {"validation_loss": 1, "final_training_loss": 2, "synflow": 3}
STRATEGIES = ("successive-halving", "asha", "hyperband")


@pytest.fixture
def settings(quick: SearchSettings) -> SearchSettings:
    space = {"width": [32], "depth": [1, 2], "pooling": ["none", "avg"], "activation": ["relu"]}
    combine = ("validation_loss", "final_training_loss=2", "synflow=3")
    halved = {"strategy": "successive-halving", "strategy_options": {"eta": 2}, "combine": combine}
    plain = replace(quick, samples=8, epochs=4, space_options=space, reference="none", seed=0)
    return replace(plain, score=MEAN_OF_RANKS, **halved)


def means(run: Path, epochs: int, among: Container[str] | None = None) -> dict[str, float]:
    """Of what did a rung the weighted mean of scipy's ranks, as a share; of all, or among some."""
    trials = stored(run, f"proxy after {epochs} epochs")
    here = {t.architecture: t.scores for t in trials if among is None or t.architecture in among}
    untrained = {trial.architecture: trial.scores for trial in stored(run, "synflow")}
    found = dict.fromkeys(here, 0.0)
    for part, weight in PARTS.items():
        values = [describe_score(part).sign * {**untrained[n], **here[n]}[part] for n in here]
        for name, rank in zip(here, rankdata(values), strict=True):
            found[name] += weight * float(rank) / sum(PARTS.values()) / len(here)
    return found


def place_of_each(run: Path) -> Mapping[str, float]:
    return {trial.architecture: trial.scores[PLACE] for trial in stored(run, "proxy")}


def test_the_best_by_the_mean_go_on(settings: SearchSettings, ran: Ran) -> None:
    told: list[Progress] = []
    run_search(settings, progress=told.append)
    stages = list(dict.fromkeys(progress.stage for progress in told))
    assert stages == ["synflow", "proxy, 1 epoch", "proxy, 2 epochs", "proxy, 4 epochs"]
    assert [progress.done for progress in told if progress.stage == "synflow"] == list(range(9))
    assert sum(estimator == "synflow" for estimator, _ in ran) == 8
    for epochs, after, count in ((1, 2, 4), (2, 4, 2)):
        here = means(settings.out, epochs)
        best = sorted(here, key=lambda name: -here[name])[:count]
        assert means(settings.out, after).keys() == set(best)
    losses = {
        t.architecture: t.scores["validation_loss"] for t in stored(settings.out, "proxy after 1 epochs")
    }
    by_one_score = sorted(losses, key=losses.__getitem__)[:4]
    assert means(settings.out, 2).keys() != set(by_one_score)
    assert place_of_each(settings.out) == pytest.approx(places([means(settings.out, n) for n in (1, 2, 4)]))


def test_asha_compares_anew_whenever_one_more_is_there(settings: SearchSettings, ran: Ran) -> None:
    asha = replace(settings, strategy="asha", strategy_options={"eta": 2, "slots": 1})
    run_search(asha)
    rungs = {epochs: means(settings.out, epochs) for epochs in (1, 2, 4)}
    assert place_of_each(settings.out) == pytest.approx(places(list(rungs.values())))
    trained = [name for estimator, name in ran if estimator == "proxy"]
    # With one slot what began first ends first: of the first rung all so far are compared at every step.
    done: list[str] = []
    promoted: set[str] = set()
    for name in trained:
        if name not in done:
            done.append(name)
        elif name not in promoted:
            promoted.add(name)
            among = means(settings.out, 1, done)
            ranked = sorted(among, key=lambda each: -among[each])
            may = -(-len(done) // 2) if len(done) == 8 else len(done) // 2
            assert name in ranked[:may]
    losses = {
        t.architecture: t.scores["validation_loss"] for t in stored(settings.out, "proxy after 1 epochs")
    }
    assert promoted == rungs[2].keys() != set(sorted(losses, key=losses.__getitem__)[: len(promoted)])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_interrupted_search_goes_on_where_it_was(
    settings: SearchSettings, ran: Ran, strategy: str
) -> None:
    chosen = replace(settings, strategy=strategy)
    other = settings.out.with_name("whole")
    run_search(replace(chosen, out=other))
    all_of_it = len(ran)
    ran.clear()
    interrupt(chosen, ran, after=13)
    run_search(resumed(settings.out))
    assert len(ran) == all_of_it  # nothing twice
    assert place_of_each(settings.out) == place_of_each(other)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_stopped_search_shows_who_is_where(settings: SearchSettings, ran: Ran, strategy: str) -> None:
    interrupt(replace(settings, strategy=strategy), ran, after=18)
    rungs = [here for epochs in (1, 2, 4) if (here := means(settings.out, epochs))]
    trials = read_run(settings.out).trials
    shown = dict(zip(trials["architecture"], trials[f"score:{PLACE}"], strict=True))
    assert len(rungs) > 1
    assert shown == pytest.approx(places(rungs))


def test_what_has_no_score_of_its_own_goes_no_further(
    settings: SearchSettings, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing, score = [], _untrained.Untrained.score

    def fails_once(self: _untrained.Untrained, *arguments: Any, **options: Any) -> Any:
        if not failing:
            failing.append(1)
            raise FloatingPointError("no number")
        return score(self, *arguments, **options)

    monkeypatch.setattr(_untrained.Untrained, "score", fails_once)
    run_search(settings)
    (failed,) = [trial.architecture for trial in stored(settings.out, "synflow") if not trial.done]
    trials = {trial.architecture: trial for trial in stored(settings.out, "proxy")}
    assert failed in trials
    assert PLACE not in trials[failed].scores
    assert sorted(trial.scores[EPOCHS] for name, trial in trials.items() if name != failed) == [
        *[1.0] * 3, *[2.0] * 2, *[4.0] * 2,
    ]  # fmt: skip


def test_the_report_says_by_what_and_counts_what_it_took(settings: SearchSettings, ran: Ran) -> None:
    run_search(replace(settings, estimators=("naswot",)))
    page = write_report([settings.out]).page
    parts = ", ".join(settings.combine)
    assert f"successive-halving (eta 2, rungs 3, criterion mean_of_ranks of {parts})" in page.read_text()
    text = page.with_name("report.md").read_text()
    assert "| rank | architecture | place by rung | epochs trained | validation loss |" in text
    run = read_run(settings.out)
    assert ranked_by(run, PLACE) == ["proxy", "synflow"]
    spent = [trial.cpu_seconds for name in ("proxy", "synflow") for trial in stored(settings.out, name)]
    assert analyse(run).cpu_seconds.search == pytest.approx(sum(spent))


def test_without_parts_of_its_own_it_takes_the_usual_ones_that_are_measured(settings: SearchSettings) -> None:
    usual = ("final_training_loss", "validation_accuracy")
    plain = replace(settings, combine=(), estimators=())
    assert plain.combined == usual
    assert replace(plain, estimators=("naswot", "jacov")).combined == (*usual, "naswot")
    assert replace(settings, score="validation_loss").combined == ()


def test_other_parts_cannot_be_taken_later(settings: SearchSettings, ran: Ran) -> None:
    run_search(settings)
    assert read_record(settings.out)["strategy"]["combined"] == list(settings.combine)
    with pytest.raises(ValueError, match=r"strategy\.combined\.?"):
        run_search(resumed(settings.out, combine=("validation_loss", "synflow")))
    run_search(resumed(settings.out))


def test_a_run_that_began_by_one_score_goes_on_by_it(settings: SearchSettings, ran: Ran) -> None:
    """As all did once, whose settings named a mean of ranks."""
    other = settings.out.with_name("whole")
    run_search(replace(settings, out=other, score="validation_loss"))
    ran.clear()
    interrupt(replace(settings, score="validation_loss"), ran, after=9)
    path = settings.out / "run.json"
    record = json.loads(path.read_text())
    record["settings"]["score"] = MEAN_OF_RANKS
    path.write_text(json.dumps(record))
    run_search(resumed(settings.out))
    assert place_of_each(settings.out) == place_of_each(other)
    with pytest.warns(UserWarning, match="by validation_loss, and so it goes on"):
        run_search(resumed(settings.out, score=MEAN_OF_RANKS))
    with pytest.raises(
        ValueError, match="criterion was 'validation_loss' there and is 'final_training_loss'"
    ):
        run_search(resumed(settings.out, score="final_training_loss"))


def test_what_is_measured_later_changes_nothing(settings: SearchSettings, ran: Ran) -> None:
    """Of a mean that was made of what the run had when it began."""
    run_search(replace(settings, combine=(), estimators=()))
    before = place_of_each(settings.out)
    run_search(resumed(settings.out, estimators=("synflow", "naswot")))
    assert len(stored(settings.out, "naswot")) == 8
    assert place_of_each(settings.out) == before
    assert read_record(settings.out)["strategy"]["combined"] == ["final_training_loss", "validation_accuracy"]


def test_scores_that_have_decided_stay_as_they_are(settings: SearchSettings, ran: Ran) -> None:
    """One that took too long is not tried again with more time."""
    limited = replace(settings, trial_limit=60.0)
    interrupt(limited, ran, after=8)
    assert {estimator for estimator, _ in ran} == {"synflow"}
    with TrialStore.open(settings.out / "trials.sqlite") as store:
        first = store.trials("synflow")[0]
        store.replace(replace(first, status="failed", reason=f"{OVERDUE} 60 seconds", scores={}))
    run_search(resumed(settings.out))
    before = {trial.architecture: trial.scores for trial in stored(settings.out, "proxy")}
    assert [name for name, scores in before.items() if PLACE not in scores] == [first.architecture]
    ran.clear()
    run_search(resumed(settings.out, trial_limit=600.0))
    assert ran == []
    assert {trial.architecture: trial.scores for trial in stored(settings.out, "proxy")} == before
    path = settings.out / "run.json"
    record = json.loads(path.read_text())
    record["estimators"]["synflow"]["measure"] = 99  # as if it had been measured otherwise then
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"estimators\.synflow\.measure was 99 there"):
        run_search(resumed(settings.out))


def test_scores_that_took_too_long_are_tried_again_while_nothing_has_trained(
    settings: SearchSettings, ran: Ran
) -> None:
    interrupt(replace(settings, trial_limit=60.0), ran, after=8)
    with TrialStore.open(settings.out / "trials.sqlite") as store:
        first = store.trials("synflow")[0]
        store.replace(replace(first, status="failed", reason=f"{OVERDUE} 60 seconds", scores={}))
    ran.clear()
    run_search(resumed(settings.out, trial_limit=600.0))
    assert ran[0] == ("synflow", first.architecture)
    assert first.architecture in place_of_each(settings.out)


def test_a_stopped_search_counts_the_names_of_a_network_once() -> None:
    at_rung = {"estimator": "proxy after 2 epochs"}
    rows = [
        {**at_rung, "architecture": name, "scores": {"validation_loss": loss}}
        for name, loss in (("a", 2.0), ("b", 2.0), ("c", 1.0))
    ]
    rows += [
        {"estimator": "synflow", "architecture": name, "scores": {"synflow": value}}
        for name, value in (("b", 3.0), ("c", 5.0))
    ]
    plain = {"status": "done", "seconds": 1.0, "cpu_seconds": 1.0, "peak_memory_mb": None}
    shown = ranked_so_far(
        [{**plain, **row} for row in rows],
        MEAN_OF_RANKS,
        ("validation_loss", "synflow"),
        same_as=lambda name: {"b": "a"}.get(name, name),
    )
    assert {row["architecture"]: row["scores"].get(PLACE) for row in shown} == {"a": 0, "b": 0, "c": 2 / 3}


def test_asha_compares_a_network_by_the_first_of_its_names_that_has_most_scores() -> None:
    stage = SimpleNamespace(name="rung", store=SimpleNamespace(get=lambda _, name: name))
    known = {"a": {"synflow": 1.0}, "b": {"synflow": 1.0, "jacov": 3.0}, "c": {"synflow": 1.0, "jacov": 4.0}}
    race = Race(AshaConfig(), (1, 2), ["a"])
    course = _Course(race, [stage], None, lambda trials: {name: known[name] for name in trials})  # type: ignore
    course._networks = {"a": ["a", "b", "c"]}
    assert course._result(Step(0, "a")) == known["b"]


def test_a_score_that_fails_for_all_ends_the_search_before_it_trains(
    settings: SearchSettings, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise FloatingPointError("no number")

    with monkeypatch.context() as patched:
        patched.setattr(_untrained.Untrained, "score", fails)
        with pytest.raises(ValueError, match=r"synflow failed for all 8 architectures \(e\.g\. .*no number"):
            run_search(settings)
    assert {estimator for estimator, _ in ran} == {"synflow"}


def test_names_of_one_network_count_once_by_the_first_that_has_all() -> None:
    scores = {
        "a": {"validation_accuracy": 0.1},
        "b": {"validation_accuracy": 0.1, "synflow": 5.0},
        "c": {"validation_accuracy": 0.1, "synflow": 9.0},
        "d": {"validation_accuracy": 0.2, "synflow": 7.0},
    }
    found = worths(
        scores, MEAN_OF_RANKS, ("validation_accuracy=3", "synflow"), same_as=lambda n: "a" if n < "d" else n
    )
    assert found == {"a": 0.5, "b": 0.5, "c": 0.5, "d": 1.0}
    assert worths(scores, MEAN_OF_RANKS, ("synflow", "jacov")) == {}
    assert worths({}, MEAN_OF_RANKS, ("synflow", "jacov")) == {}


def test_a_record_that_names_no_scores_of_a_mean_is_read(settings: SearchSettings, ran: Ran) -> None:
    interrupt(settings, ran, after=18)
    path = settings.out / "run.json"
    record = json.loads(path.read_text())
    record["strategy"]["combined"] = []
    path.write_text(json.dumps(record))
    assert PLACE not in " ".join(read_run(settings.out).score_names)


def test_names_of_one_network_share_their_place_and_a_checkpoint(
    settings: SearchSettings, ran: Ran, tmp_path: Path
) -> None:
    cells = [f"|nor_conv_1x1~0|+|none~0|{op}~1|+|none~0|none~1|none~2|" for op in ("none", "skip_connect")]
    cells += [f"|{op}~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|" for op in ("none", "nor_conv_3x3")]
    cells += [f"|none~0|+|none~0|none~1|+|{op}~0|none~1|none~2|" for op in ("nor_conv_1x1", "nor_conv_3x3")]
    listed = tmp_path / "cells.csv"
    listed.write_text("architecture\n" + "\n".join(cells) + "\n")
    kept = []

    def look(progress: Progress) -> None:
        if progress.architecture is None and progress.stage == "proxy, 2 epochs":
            kept.append(len(list((settings.out / CHECKPOINTS).iterdir())))

    space = {"space": "nasbench201", "space_options": {"cells": 1, "channels": 4}}
    run_search(replace(settings, architectures=listed, samples=None, epochs=2, **space), progress=look)
    same = read_record(settings.out)["same"]
    place = place_of_each(settings.out)
    assert same
    assert all(place[name] == place[first] for name, first in same.items())
    trained = {same.get(name, name) for name in place}
    assert kept == [-(-len(trained) // 2)]

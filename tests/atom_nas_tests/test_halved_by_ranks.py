"""Searches that stop trainings early and rank by a mean of ranks: who goes on, and at what place."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import rankdata
from search_helpers import interrupt
from trial_helpers import stored

from atom_nas.estimators import _untrained
from atom_nas.halving import EPOCHS, PLACE
from atom_nas.resuming import resumed
from atom_nas.run_folder import read_record
from atom_nas.search import SearchSettings, run_search
from atom_nas.stage import Progress
from reports import write_report
from reports.analysis import analyse
from reports.costs import ranked_by
from reports.rungs import places
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


def means(run: Path, epochs: int) -> dict[str, float]:
    """Of what did a rung the weighted mean of scipy's ranks, as a share."""
    here = {trial.architecture: trial.scores for trial in stored(run, f"proxy after {epochs} epochs")}
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
    assert next(progress.stage for progress in told) == "synflow"
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
    trained = [name for estimator, name in ran if estimator == "proxy"]
    rungs = {epochs: means(settings.out, epochs) for epochs in (1, 2, 4)}
    assert len(trained) == sum(map(len, rungs.values())) > 8
    best = max(rungs[1], key=rungs[1].__getitem__)
    assert best in rungs[2]
    assert place_of_each(settings.out) == pytest.approx(places(list(rungs.values())))


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
    with pytest.raises(ValueError, match="criterion"):
        run_search(resumed(settings.out, score=MEAN_OF_RANKS))

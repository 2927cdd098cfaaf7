"""Architectures that are one network by several names: trained once, whatever the order."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from trial_helpers import failing_first, stored

import search_spaces
from atom_nas import load_architecture
from atom_nas.estimators import base
from atom_nas.estimators.measure import network_costs
from atom_nas.run_folder import read_record
from atom_nas.search import Progress, SearchSettings, run_search
from distill.training import TrainingRecord
from reports import write_report
from search_spaces.base import enumerate_space, representative

FIRST = "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|"
DIRECT = "|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|"
DEAD_END = "|nor_conv_1x1~0|+|nor_conv_3x3~0|none~1|+|none~0|skip_connect~1|none~2|"
OTHER = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|"
SAME = (FIRST, DIRECT, DEAD_END)
SPACE = search_spaces.load("nasbench201", cells=1, channels=4)
COSTS = {"parameters", "flops"}

pytestmark = pytest.mark.usefixtures("ran")


@pytest.fixture
def settings(quick: SearchSettings) -> SearchSettings:
    return replace(quick, space="nasbench201", space_options={"cells": 1, "channels": 4}, epochs=2)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[TrainingRecord]:
    """What was really trained."""
    train, done = base.train, []

    def counted(*arguments: Any, **options: Any) -> TrainingRecord:
        done.append(train(*arguments, **options))
        return done[-1]

    monkeypatch.setattr(base, "train", counted)
    return done


def listed(settings: SearchSettings, folder: str, names: Sequence[str], **changes: Any) -> SearchSettings:
    """The search of these architectures, into a folder of its own."""
    out = settings.out.with_name(folder)
    file = out.with_suffix(".csv")
    file.write_text("architecture\n" + "\n".join(names) + "\n")
    return replace(settings, out=out, architectures=file, samples=None, **changes)


def scores(run: Path, estimator: str = "proxy") -> dict[str, dict[str, float]]:
    return {trial.architecture: dict(trial.scores) for trial in stored(run, estimator)}


def test_the_names_are_of_one_network() -> None:
    assert len({str(representative(SPACE, SPACE.parse(name))) for name in SAME}) == 1
    assert str(representative(SPACE, SPACE.parse(OTHER))) not in SAME
    convnets = search_spaces.load("convnet")
    one = convnets.parse("w32-d1-none-relu-avg")
    assert representative(convnets, one) is one


def test_one_network_is_trained_once_and_every_name_has_its_own_costs(
    settings: SearchSettings, trainings: list[TrainingRecord]
) -> None:
    summary = run_search(listed(settings, "run", [*SAME, OTHER]))
    assert len(trainings) == 2 + 2  # the proxy and the reference of two networks
    assert (summary.failed, summary.repeated, summary.matched) == (0, 2, 4)
    for estimator in ("proxy", "real"):
        found = scores(summary.path, estimator)
        learnt = [{name: v for name, v in found[each].items() if name not in COSTS} for each in SAME]
        assert learnt[0] == learnt[1] == learnt[2] != found[OTHER]
        for name in SAME:
            costs = network_costs(SPACE.build(SPACE.parse(name), (1, 8, 8), 10), (1, 8, 8))
            assert {each: found[name][each] for each in COSTS} == costs
    assert len({found[name]["parameters"] for name in SAME}) == 2  # a dead end has weights too
    assert read_record(summary.path)["same"] == {DIRECT: FIRST, DEAD_END: FIRST}
    note = "2 architectures are the same network as another"
    assert note in write_report([summary.path]).page.read_text()


def test_the_report_also_counts_each_network_once(settings: SearchSettings) -> None:
    cells = [str(each) for each in itertools.islice(enumerate_space(SPACE), 3000, 3600, 40)]
    run = listed(settings, "run", [*SAME, *cells], epochs=1, score="final_training_loss")
    table = {name: float(place) for place, name in enumerate([*SAME, *cells])}
    reference = settings.out.with_name("table.csv")
    rows = [f"{name},{score}" for name, score in table.items()]
    reference.write_text("\n".join(["architecture,score", *rows]) + "\n")
    run_search(replace(run, reference=str(reference)))
    (report,) = write_report([run.out]).reports
    networks: dict[str, list[tuple[float, float]]] = {}
    for name, found in scores(run.out).items():
        network = str(representative(SPACE, SPACE.parse(name)))
        networks.setdefault(network, []).append((-found["final_training_loss"], table[name]))
    assert len(networks) < len(table) - 1
    means = np.array([np.mean(each, axis=0) for each in networks.values()])
    assert report.networks is not None
    assert report.networks.n == len(networks)
    assert report.networks.value == pytest.approx(scipy.stats.spearmanr(*means.T).statistic)
    said = f"With each counted once, by the means over its names, Spearman is {report.networks.value:.2f} ("
    assert said in " ".join(report.notes)


@pytest.mark.parametrize("halving", [False, True], ids=["at once", "successive halving"])
def test_scores_depend_neither_on_which_name_comes_first_nor_on_the_others(
    settings: SearchSettings, halving: bool
) -> None:
    options: dict[str, Any] = {"reference": "none", "epochs": 4}
    if halving:
        options |= {"strategy": "successive-halving", "strategy_options": {"eta": 2}}
    runs = [
        run_search(listed(settings, "there", [*SAME, OTHER], **options)).path,
        run_search(listed(settings, "back", [OTHER, *reversed(SAME)], **options)).path,
        run_search(listed(settings, "alone", [DEAD_END], **options)).path,
    ]
    for stage in [f"proxy after {epochs} epochs" for epochs in (1, 2, 4)] if halving else ["proxy"]:
        learnt = [
            {name: value for name, value in found.items() if name not in COSTS}
            for run in runs
            for architecture, found in scores(run, stage).items()
            if architecture in SAME
        ]
        assert len(learnt) >= 2
        assert all(found == learnt[0] for found in learnt)


def test_what_an_earlier_session_trained_is_not_trained_again(
    settings: SearchSettings, trainings: list[TrainingRecord]
) -> None:
    def stop(progress: Progress) -> None:
        if progress.done == 1:
            raise KeyboardInterrupt

    run = listed(settings, "run", [FIRST, DIRECT], reference="none")
    with pytest.raises(KeyboardInterrupt):
        run_search(run, progress=stop)
    assert list(scores(run.out)) == [FIRST]
    run_search(replace(run, resume=True))
    assert len(trainings) == 1
    found = scores(run.out)
    assert found[DIRECT]["final_training_loss"] == found[FIRST]["final_training_loss"]


def test_what_is_kept_or_counted_by_name_is_of_the_name(settings: SearchSettings) -> None:
    """Initial weights are a name's own, by which NASWOT differs; what is confirmed fits its name."""
    kept = {"reference": "none", "confirm": 1, "confirm_epochs": 1}
    run = listed(settings, "run", SAME, estimators=("naswot",), **kept)
    run_search(run)
    values = scores(run.out, "naswot")
    assert values[DEAD_END]["naswot"] != values[FIRST]["naswot"]
    for name in SAME:
        alone = listed(settings, f"alone{SAME.index(name)}", [name], **kept)
        run_search(alone)
        loaded = load_architecture(alone.out, architecture=name)
        own = SPACE.build(SPACE.parse(name), (1, 8, 8), 10)
        assert loaded.network.state_dict().keys() == own.state_dict().keys()


def test_a_network_that_failed_by_one_name_is_tried_by_the_next(
    settings: SearchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "train", failing_first(base.train, "a moment without memory"))
    summary = run_search(listed(settings, "run", SAME, reference="none"))
    assert (summary.failed, summary.repeated) == (1, 1)
    assert DIRECT in scores(summary.path)


def test_which_name_is_the_first_is_found_anew_when_a_run_goes_on(settings: SearchSettings) -> None:
    """A session that was killed may have seen the second name alone, and called it the first."""
    run = listed(settings, "run", [DIRECT, FIRST], reference="none")
    run_search(run)
    record = read_record(run.out)
    (run.out / "run.json").write_text(json.dumps({**record, "same": {DIRECT: FIRST}}))
    summary = run_search(replace(run, resume=True, confirm=2, confirm_epochs=1))
    assert read_record(run.out)["same"] == {FIRST: DIRECT}
    assert summary.confirmed == 1


def test_names_of_one_network_are_confirmed_once(settings: SearchSettings) -> None:
    run = listed(settings, "run", [*SAME, OTHER], reference="none", confirm=3, confirm_epochs=1)
    summary = run_search(run)
    assert summary.confirmed == 2
    ranked = sorted(scores(run.out).items(), key=lambda found: -found[1]["validation_accuracy"])
    firsts = {FIRST if name in SAME else OTHER for name, _ in ranked}
    assert {trial.architecture for trial in stored(run.out, "confirm")} == firsts == {FIRST, OTHER}


def test_references_of_other_runs_cost_what_a_training_costs(
    settings: SearchSettings, trainings: list[TrainingRecord]
) -> None:
    """What a second name of a run took, next to nothing, is nobody's; nor is a training paid for twice."""
    run_search(listed(settings, "both", [FIRST, DIRECT]))
    assert len(trainings) == 2
    run_search(listed(settings, "second", [DIRECT]))
    assert len(trainings) == 4
    assert [trial.cached for trial in stored(settings.out.with_name("second"), "real")] == [False]
    again = listed(settings, "again", [FIRST, DIRECT])
    run_search(again)
    assert len(trainings) == 5  # the proxy, the reference is in the cache
    found = {trial.architecture: trial for trial in stored(again.out, "real")}
    assert {name: trial.cached for name, trial in found.items()} == {FIRST: True, DIRECT: False}
    assert found[FIRST].scores["test_accuracy"] == found[DIRECT].scores["test_accuracy"]


def test_a_search_that_was_stopped_knows_which_are_one_network(settings: SearchSettings) -> None:
    def stop(progress: Progress) -> None:
        if progress.stage == "reference":
            raise KeyboardInterrupt

    run = listed(settings, "run", [*SAME, OTHER])
    with pytest.raises(KeyboardInterrupt):
        run_search(run, progress=stop)
    record = read_record(run.out)
    assert (record["complete"], record["same"]) == (False, {DIRECT: FIRST, DEAD_END: FIRST})
    with pytest.raises(KeyboardInterrupt):
        run_search(replace(run, resume=True), progress=stop)
    assert read_record(run.out)["same"] == {DIRECT: FIRST, DEAD_END: FIRST}


def test_halving_counts_networks_and_their_names_go_on_together(settings: SearchSettings) -> None:
    cells = [str(each) for each in itertools.islice(enumerate_space(SPACE), 3000, 3120, 40)]
    halving = {"strategy": "successive-halving", "strategy_options": {"eta": 2}, "reference": "none"}
    run = listed(settings, "run", [cells[0], FIRST, *cells[1:], DIRECT, DEAD_END], epochs=4, **halving)
    run_search(run)
    found = scores(run.out)
    assert len({str(representative(SPACE, SPACE.parse(name))) for name in found}) == 4
    assert len({(found[name]["halving_place"], found[name]["trained_epochs"]) for name in SAME}) == 1
    reached = {
        str(representative(SPACE, SPACE.parse(name))): each["trained_epochs"] for name, each in found.items()
    }
    assert sorted(reached.values()) == [1.0, 1.0, 2.0, 4.0]

"""Asynchronous halving: who goes on and when; neither the order of trainings nor interruptions matter."""

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from search_helpers import interrupt
from torch import nn
from trial_helpers import InlineEngine

from atom_nas.asha import TITLE, Race, Step
from atom_nas.engines.base import More, Outcome
from atom_nas.estimators.proxy import ProxyEstimator
from atom_nas.halving import EPOCHS, PLACE
from atom_nas.run_folder import CHECKPOINTS, read_record
from atom_nas.search import SearchSettings, run_search
from atom_nas.stage import Progress
from atom_nas.strategies import AshaConfig, configure
from atom_nas.trials import Trial, TrialStore
from atom_nas.workload import TrialJob
from reports import write_report
from reports.rungs import places
from reports.runs import read_run

Ran = list[tuple[str, str]]
Stored = dict[str, Trial]


@pytest.fixture
def settings(quick: SearchSettings) -> SearchSettings:
    space = {"width": [32], "depth": [1, 2], "pooling": ["none", "avg"], "activation": ["relu"]}
    asha = {"strategy": "asha", "strategy_options": {"eta": 2, "slots": 3}, "seed": 0}
    return replace(quick, samples=8, epochs=4, space_options=space, reference="none", **asha)


def stored(path: Path, estimator: str = "proxy") -> Stored:
    with TrialStore.open(path / "trials.sqlite") as store:
        return {trial.architecture: trial for trial in store.trials(estimator)}


def rungs(path: Path) -> list[Stored]:
    return [stored(path, f"proxy after {epochs} epochs") for epochs in (1, 2, 4)]


def scores(path: Path) -> list[dict[str, Any]]:
    """Of all architectures in the end, and at each rung."""
    return [{name: trial.scores for name, trial in of.items()} for of in (stored(path), *rungs(path))]


def finished(race: Race, value: Callable[[Step], float | None]) -> list[Step]:
    """The steps of a race in the order in which they began."""
    begun = race.begin()
    while (step := race.awaited()) is not None:
        race.end(value(step))
        begun += race.begin()
    return begun


@pytest.mark.parametrize(
    ("worths", "begun"),
    [
        # b is the best of two, c of three and, at the next rung, of two; d is among the best two of four,
        # and, with nobody left to come, of the next rung's three.
        ((1.0, 2.0, 4.0, 3.0), "a0b0b1c0c1c2d0d1d2"),
        # b, alone at its rung, is not the best there while c may still come.
        ((1.0, 2.0, 3.0), "a0b0b1c0c1c2"),
        # Of equals the first.
        ((1.0, 1.0), "a0b0a1a2"),
    ],
    ids=str,
)
def test_one_slot_is_the_papers_rule_one_after_the_other(worths: Sequence[float], begun: str) -> None:
    worth = dict(zip("abcd", worths, strict=False))
    race = Race(AshaConfig(eta=2, slots=1), (1, 2, 4), list(worth))
    steps = finished(race, lambda step: worth[step.network])
    assert "".join(f"{step.network}{step.rung}" for step in steps) == begun


def test_results_count_by_the_clock_of_epochs() -> None:
    race = Race(AshaConfig(eta=2, slots=2), (1, 4), ["a", "b", "c", "d"])
    assert race.begin() == [Step(0, "a"), Step(0, "b")]
    race.end(1.0)
    assert race.begin() == [Step(0, "c")]
    race.end(2.0)
    assert race.begin() == [Step(1, "b")]  # of a and b; 3 epochs, so that what begins now ends before
    race.end(1.5)
    assert race.begin() == [Step(0, "d")]
    assert race.awaited() == Step(0, "d")


def test_results_are_compared_anew_with_every_one() -> None:
    def worths(results: Mapping[str, float]) -> Mapping[str, float]:
        """Turned round once c is there."""
        return {name: -value if "c" in results else value for name, value in results.items()}

    race = Race(AshaConfig(eta=2, slots=1), (1, 2), list("abcd"), worths)
    values = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    steps = finished(race, lambda step: values[step.network])
    assert "".join(f"{step.network}{step.rung}" for step in steps) == "a0b0b1c0a1d0"


@pytest.mark.parametrize("slots", [1, 2, 5, 16, 100])
@pytest.mark.parametrize("seed", range(4))
def test_a_race_of_any_width_keeps_its_rules(slots: int, seed: int) -> None:
    draw = random.Random(seed)
    count, eta, epochs = draw.randint(1, 40), draw.randint(2, 4), (2, 6, 18)
    fails = {Step(draw.randrange(3), f"n{draw.randrange(count)}") for _ in range(3)}
    worth = {f"n{number}": draw.choice([draw.random(), 0.5]) for number in range(count)}
    race = Race(AshaConfig(eta=eta, slots=slots), epochs, list(worth))
    values: list[dict[str, float]] = [{}, {}, {}]
    running, begun = race.begin(), 0
    seen = list(running)
    while (step := race.awaited()) is not None:
        running.remove(step)
        value = None if step in fails else worth[step.network]
        values[step.rung] |= {} if value is None else {step.network: value}
        race.end(value)
        for new in race.begin():
            running.append(new)
            seen.append(new)
            if new.rung:
                below = values[new.rung - 1]
                better = sum(other > below[new.network] for other in below.values())
                assert better < -(-len(below) // eta)
        assert len(running) <= slots
        begun += 1
    assert begun == len(seen) == len(set(seen))
    assert {step.network for step in seen if step.rung == 0} == set(worth)
    for rung in (0, 1):
        best = sorted(values[rung], key=lambda n: -values[rung][n])[: -(-len(values[rung]) // eta)]
        gone = {step.network for step in seen if step.rung == rung + 1}
        assert len(gone) >= len(best)  # as many as successive halving, and among them its best
        assert all(any(worth[n] == worth[g] for g in gone) for n in best)


def test_options_that_make_no_sense_are_refused() -> None:
    assert configure("asha", {"slots": "4"}, 10) == AshaConfig(slots=4)
    with pytest.raises(ValueError, match="slots is 0: at least 1"):
        configure("asha", {"slots": 0}, 10)
    with pytest.raises(ValueError, match="eta"):
        configure("asha", {"eta": 1}, 10)


def unordered(
    seed: int, inline: Callable[..., Iterator[Outcome[TrialJob]]]
) -> Callable[..., Iterator[Outcome[TrialJob]]]:
    """The engine's `run`, ending trainings in an order of its own, as workers of different speed do."""

    def run(
        engine: InlineEngine,
        jobs: Sequence[TrialJob],
        on_wait: Any = None,
        more: More[TrialJob] | None = None,
    ) -> Iterator[Outcome[TrialJob]]:
        draw, pending = random.Random(seed), deque(jobs)
        while pending.extend(more() if more else ()) or pending:
            pending.rotate(draw.randrange(len(pending)))
            yield from inline(engine, [pending.popleft()])

    return run


def test_who_was_first_does_not_matter(
    settings: SearchSettings, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_search(settings)
    orders = [list(ran)]
    inline = InlineEngine.run
    for seed in (1, 2):
        monkeypatch.setattr(InlineEngine, "run", unordered(seed, inline))
        ran.clear()
        other = settings.out.with_name(f"run{seed}")
        run_search(replace(settings, out=other))
        orders.append(list(ran))
        assert scores(other) == scores(settings.out)
    assert orders[0] != orders[1] != orders[2]


def test_who_goes_on_and_their_places(settings: SearchSettings, ran: Ran) -> None:
    told: list[Progress] = []
    summary = run_search(replace(settings, score="validation_loss"), progress=told.append)
    at, trials = rungs(settings.out), stored(settings.out)
    assert len(at[0]) == len(trials) == 8
    assert len(at[1]) >= 4
    assert len(at[2]) >= 2
    assert len(ran) == sum(map(len, at))
    for name, trial in trials.items():
        last = max(number for number, here in enumerate(at) if name in here)
        losses = [other.scores["validation_loss"] for other in at[last].values()]
        beaten = sum(loss > trial.scores["validation_loss"] for loss in losses) / len(losses)
        assert trial.scores[PLACE] == last + beaten
        assert trial.scores[EPOCHS] == (1, 2, 4)[last]
        assert trial.cpu_seconds == pytest.approx(sum(of[name].cpu_seconds for of in at if name in of))
    assert not (settings.out / CHECKPOINTS).exists()
    assert read_record(settings.out)["strategy"]["options"] == {"eta": 2, "rungs": 3, "slots": 3}
    assert "were stopped before epoch 4" in write_report([settings.out]).page.read_text()
    epochs = sum(length * len(of) for length, of in zip((1, 1, 2), at, strict=True))
    bar = [progress for progress in told if progress.stage == TITLE]
    assert (bar[0].done, bar[-1].done, bar[-1].total) == (0, epochs, epochs)
    assert all(progress.done <= progress.total for progress in bar)
    assert summary.failed == 0


def test_the_last_ones_score_as_if_they_had_trained_at_once(settings: SearchSettings, ran: Ran) -> None:
    run_search(settings)
    other = settings.out.with_name("whole")
    run_search(replace(settings, strategy="random", strategy_options={}, out=other))
    whole, halved = stored(other), stored(settings.out)
    assert list(halved) == list(whole)
    for name in (name for name, trial in halved.items() if trial.scores[EPOCHS] == 4):
        assert {**whole[name].scores, PLACE: halved[name].scores[PLACE], EPOCHS: 4.0} == halved[name].scores


@pytest.mark.parametrize("survived", [1, 4, 7, 10, 13])
def test_an_interrupted_search_goes_on_where_it_was(
    settings: SearchSettings, ran: Ran, survived: int
) -> None:
    other = settings.out.with_name("whole")
    run_search(replace(settings, out=other))
    all_of_it = len(ran)
    ran.clear()

    interrupt(settings, ran, after=survived)
    run_search(replace(settings, resume=True))
    assert len(ran) == all_of_it  # nothing twice
    assert scores(settings.out) == scores(other)
    told: list[Progress] = []
    run_search(replace(settings, resume=True), progress=told.append)
    assert len(ran) == all_of_it
    end = next(progress for progress in reversed(told) if progress.stage == TITLE)
    assert end.done == end.total == end.reused > 0
    with pytest.raises(ValueError, match="begin a new run"):
        run_search(replace(settings, samples=9, resume=True))


@pytest.mark.parametrize("strategy", ["asha", "successive-halving", "hyperband"])
def test_a_stopped_search_shows_who_is_where(settings: SearchSettings, ran: Ran, strategy: str) -> None:
    options = {"eta": 2, "slots": 3} if strategy == "asha" else {"eta": 2}
    chosen = replace(settings, strategy=strategy, strategy_options=options, score="validation_loss")
    seen: list[tuple[int, int]] = []

    def look(progress: Progress) -> None:
        write_report([settings.out])
        lines = (settings.out / "report" / "ranking.csv").read_text().splitlines()
        seen.append((len({name for _, name in ran}), sum(not line.startswith(",") for line in lines[1:])))
        if len(ran) == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_search(chosen, progress=look)
    assert all(there == ranked for there, ranked in seen)
    assert seen[-1][1] > 4
    at = [of for of in rungs(settings.out) if of]
    among = places([{name: -trial.scores["validation_loss"] for name, trial in here.items()} for here in at])
    shown = {trial["architecture"]: trial for trial in read_run(settings.out).trials.to_dict("records")}
    for number, here in enumerate(at):
        losses = {name: trial.scores["validation_loss"] for name, trial in here.items()}
        for name in here.keys() - (at[number + 1].keys() if number + 1 < len(at) else set()):
            beaten = sum(loss > losses[name] for loss in losses.values()) / len(losses)
            place = among[name] if strategy == "hyperband" else number + beaten
            assert shown[name]["score:halving_place"] == pytest.approx(place)
            took = sum(of[name].cpu_seconds for of in at if name in of)
            assert shown[name]["cpu_seconds"] == pytest.approx(took)


@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize("strategy", ["asha", "successive-halving", "hyperband"])
def test_a_search_stopped_while_it_stores_places_shows_the_same(
    settings: SearchSettings, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    options = {"eta": 2, "slots": 3} if strategy == "asha" else {"eta": 2}
    chosen = replace(settings, strategy=strategy, strategy_options=options)
    add: Callable[[TrialStore, Trial], None] = TrialStore.add
    whole = settings.out.with_name("whole")
    run_search(replace(chosen, out=whole))

    def stop(store: TrialStore, trial: Trial) -> None:
        add(store, trial)
        if trial.estimator == "proxy" and len(store.trials("proxy")) == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrialStore, "add", stop)
        with pytest.raises(KeyboardInterrupt):
            run_search(chosen)
    assert len(stored(settings.out)) == 5
    shown = read_run(settings.out).trials
    places = {name: trial.scores[PLACE] for name, trial in stored(whole).items()}
    assert dict(zip(shown["architecture"], shown["score:halving_place"], strict=True)) == places
    run_search(replace(chosen, resume=True))
    assert scores(settings.out) == scores(whole)


@pytest.mark.usefixtures("ran")
def test_names_of_one_network_go_on_together(
    settings: SearchSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, score = [], ProxyEstimator.score

    def counted(self: ProxyEstimator, network: nn.Module, **how: Any) -> dict[str, float]:
        trained.append(how["leg"].until)
        return score(self, network, **how)

    monkeypatch.setattr(ProxyEstimator, "score", counted)
    # Nothing leads from nodes 1 and 2 to the output: what they are made of does not matter.
    cells = [
        f"|nor_conv_3x3~0|+|{edge}~0|none~1|+|{last}~0|none~1|none~2|"
        for last in ("nor_conv_1x1", "avg_pool_3x3", "skip_connect")
        for edge in ("none", "skip_connect")
    ]
    listed = tmp_path / "list.csv"
    listed.write_text("architecture\n" + "\n".join(cells) + "\n")
    tiny = {"space": "nasbench201", "space_options": {"cells": 1, "channels": 4}, "architectures": listed}
    summary = run_search(replace(settings, **tiny, samples=None, validation_images=30))
    trials, at = stored(settings.out), rungs(settings.out)
    assert summary.repeated == 3
    for first, second in zip(cells[::2], cells[1::2], strict=True):
        assert trials[first].scores[PLACE] == trials[second].scores[PLACE]
        assert [first in of for of in at] == [second in of for of in at]
    assert len(trained) == sum(map(len, at)) / 2


@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize("failing", [(2, 6), range(2, 9)], ids=str)
def test_failed_architectures_have_no_place(
    settings: SearchSettings, monkeypatch: pytest.MonkeyPatch, failing: Sequence[int]
) -> None:
    from atom_nas.estimators import base

    real, calls = base.train, []

    def fails_sometimes(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) in failing:
            raise FloatingPointError("no number")
        return real(*arguments, **options)

    monkeypatch.setattr(base, "train", fails_sometimes)
    told: list[Progress] = []
    summary = run_search(settings, progress=told.append)
    failed = [trial for trial in stored(settings.out).values() if not trial.done]
    assert summary.failed == len(failed) == told[-1].failed == len(failing)
    assert told[-1].done == told[-1].total  # of all that failed but one, fewer go on than was thought
    assert all(trial.scores == {} and "no number" in (trial.reason or "") for trial in failed)


def test_of_equals_the_one_proposed_first_goes_on() -> None:
    steps = finished(Race(AshaConfig(eta=2, slots=1), (1, 2), ["z", "a"]), lambda _: 1.0)
    assert "".join(f"{step.network}{step.rung}" for step in steps) == "z0a0z1"

"""Successive halving: who goes on, what is stored, and that trainings in parts are the whole ones."""

import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from search_helpers import interrupt
from torch import nn
from trial_helpers import trial as finished

from atom_nas.halving import EPOCHS, PLACE, Halving, Rung
from atom_nas.run_folder import CHECKPOINTS, read_record
from atom_nas.search import SearchSettings, run_search
from atom_nas.strategies import HalvingConfig, HyperbandConfig, configure
from atom_nas.trials import Trial, TrialStore
from distill.leg import Leg, keep, take_up, trained_network
from distill.networks import build
from distill.seeding import stream
from distill.training import TrainingRecord
from reports import write_report

Ran = list[tuple[str, str]]


@pytest.fixture
def settings(quick: SearchSettings) -> SearchSettings:
    space = {"width": [32], "depth": [1, 2], "pooling": ["none", "avg"], "activation": ["relu"]}
    halving = {"strategy": "successive-halving", "strategy_options": {"eta": 2}, "seed": 0}
    return replace(quick, samples=6, epochs=4, space_options=space, reference="none", **halving)


def stored(path: Path, estimator: str = "proxy") -> dict[str, Trial]:
    with TrialStore.open(path / "trials.sqlite") as store:
        return {trial.architecture: trial for trial in store.trials(estimator)}


def test_rungs_of_epochs_and_who_goes_on() -> None:
    assert HalvingConfig().epochs(81) == (9, 27, 81)
    assert HalvingConfig(eta=2, rungs=4).epochs(100) == (13, 25, 50, 100)
    assert HalvingConfig(rungs=5).epochs(2) == (1, 2)
    assert HalvingConfig(eta=1000, rungs=1_000_000).epochs(5) == (1, 5)
    assert [HalvingConfig(eta=3).promoted(count) for count in (1, 3, 4, 10)] == [1, 1, 2, 4]
    assert configure("successive-halving", {"eta": "4"}, 10) == HalvingConfig(eta=4)


def test_brackets_are_as_large_as_the_paper_has_them() -> None:
    assert HalvingConfig().brackets(20, 3) == (20, 0, 0)
    # Li et al. 2018, algorithm 1: eta = 3 and R = 81 give 81, 34, 15, 8 and 5.
    assert HyperbandConfig(rungs=5).brackets(81 + 34 + 15 + 8 + 5, 5) == (81, 34, 15, 8, 5)
    for count in range(1, 60):
        sizes = HyperbandConfig(eta=2).brackets(count, 4)
        assert sum(sizes) == count
        assert sizes[0] == max(sizes)
        assert min(sizes) >= (1 if count >= 4 else 0)


def test_what_took_longest_by_another_of_its_names_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = {"quick": "first", "slow": "second"}
    monkeypatch.setattr(HalvingConfig, "promoted", lambda _, count: count)
    order: list[list[str]] = []

    def ensure(rung: Rung, positions: dict[str, int]) -> None:
        order.append(list(positions))
        for name, position in positions.items():
            seconds = 100.0 if name == "slow" else 1.0
            scores = {"validation_accuracy": 0.5}
            changes = {
                "estimator": rung.stored_as,
                "position": position,
                "seconds": seconds,
                "scores": scores,
            }
            store.add(finished(name, **changes))

    def stage(rung: Rung, total: int, **special: Any) -> Any:
        return SimpleNamespace(ensure=partial(ensure, rung))

    with TrialStore.create(tmp_path / "t.sqlite") as store:
        halving = Halving(
            HalvingConfig(eta=2, rungs=2),
            epochs=2,
            score="validation_accuracy",
            folder=tmp_path,
            store=store,
            stage=stage,
            same_as=networks.__getitem__,
        )
        halving.evaluate(list(networks))  # type: ignore[arg-type]
    assert order == [["quick", "slow"], ["slow", "quick"]]


def test_hyperband_halves_each_bracket_by_itself(settings: SearchSettings, ran: Ran) -> None:
    run_search(replace(settings, strategy="hyperband", score="validation_loss"))
    at = {n: stored(settings.out, f"proxy after {n} epochs") for n in (1, 2, 4)}
    names = list(stored(settings.out))
    brackets = [names[:2], names[2:4], names[4:]]
    assert list(at[1]) == brackets[0]

    def better(bracket: list[str], epochs: int) -> str:
        return min(bracket, key=lambda name: at[epochs][name].scores["validation_loss"])

    first = better(brackets[0], 1)
    second = better(brackets[1], 2)
    assert set(at[2]) == {first, *brackets[1]}
    assert set(at[4]) == {first, second, *brackets[2]}
    assert len(ran) == 2 + 3 + 4
    trials = stored(settings.out)
    for name, trial in trials.items():
        assert trial.scores[EPOCHS] == max(epochs for epochs, here in at.items() if name in here)
    # Of each bracket of two one leaves the other behind: that of the last bracket is no better than those
    # that were stopped before, though it has trained to the end.
    order = sorted(trials, key=lambda name: trials[name].scores[PLACE])
    assert [trials[name].scores[EPOCHS] for name in order] == [1, 2, 4, 4, 4, 4]
    assert [trials[name].scores[PLACE] for name in order] == pytest.approx(
        [number / 6 for number in range(6)]
    )
    assert order[2:] == sorted(order[2:], key=lambda name: -trials[name].scores["validation_loss"])
    assert read_record(settings.out)["strategy"]["name"] == "hyperband"
    ran.clear()
    run_search(replace(settings, strategy="hyperband", score="validation_loss", resume=True))
    assert ran == []
    assert stored(settings.out) == trials


@pytest.mark.parametrize("options", [{"eta": 1}, {"rungs": 1}, {"eta": "two"}, {"gamma": 1}], ids=str)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        configure("successive-halving", options, 10)


def test_the_last_ones_score_as_if_they_had_trained_at_once(settings: SearchSettings, ran: Ran) -> None:
    run_search(settings)
    assert len(ran) == 6 + 3 + 2
    halved = stored(settings.out)
    other = settings.out.with_name("whole")
    run_search(replace(settings, strategy="random", strategy_options={}, out=other))
    whole = stored(other)
    assert list(halved) == list(whole)  # proposed in the same order
    trained = {name: trial.scores[EPOCHS] for name, trial in halved.items()}
    assert sorted(trained.values()) == [1, 1, 1, 2, 4, 4]
    for name in (name for name in trained if trained[name] == 4):
        assert {**whole[name].scores, PLACE: halved[name].scores[PLACE], EPOCHS: 4.0} == halved[name].scores


def test_places_follow_rungs_and_then_the_score(settings: SearchSettings, ran: Ran) -> None:
    run_search(replace(settings, score="validation_loss"))
    trials = stored(settings.out)
    for epochs, rung in ((1, 0), (2, 1), (4, 2)):
        here = stored(settings.out, f"proxy after {epochs} epochs")
        losses = {name: trial.scores["validation_loss"] for name, trial in here.items()}
        goes_on = {name for name in losses if trials[name].scores[EPOCHS] > epochs}
        stops = losses.keys() - goes_on
        assert not goes_on or max(losses[n] for n in goes_on) <= min(losses[n] for n in stops)
        for name in stops:
            beaten = sum(loss > losses[name] for loss in losses.values()) / len(losses)
            assert trials[name].scores[PLACE] == rung + beaten
    rungs = [stored(settings.out, f"proxy after {epochs} epochs") for epochs in (1, 2, 4)]
    for name, trial in trials.items():
        parts = [rung[name] for rung in rungs if name in rung]
        assert trial.cpu_seconds == pytest.approx(sum(part.cpu_seconds for part in parts))
        assert trial.scores["validation_loss"] == parts[-1].scores["validation_loss"]


def test_the_report_ranks_by_place_and_says_so(settings: SearchSettings, ran: Ran) -> None:
    run_search(settings)
    record = read_record(settings.out)
    assert record["score"] == PLACE
    assert record["strategy"]["criterion"] == "validation_accuracy"
    assert not (settings.out / CHECKPOINTS).exists()
    written = write_report([settings.out])
    assert "4 of 6 trainings were stopped before epoch 4" in written.page.read_text()
    first = max(stored(settings.out).values(), key=lambda trial: trial.scores[PLACE])
    accuracy = f"{first.scores['validation_accuracy']:.1%}"
    lines = (settings.out / "report" / "report.md").read_text().splitlines()
    head = lines.index("| rank | architecture | place by rung | epochs trained | validation accuracy |")
    assert lines[head + 1] == "|--:|---|--:|--:|--:|"
    assert lines[head + 2] == f"| 1 | `{first.architecture}` | {first.scores[PLACE]:.4g} | 4 | {accuracy} |"
    ranking = (settings.out / "report" / "ranking.csv").read_text().splitlines()
    places = [float(line.split(",")[2]) for line in ranking[1:]]
    assert places == sorted(places, reverse=True)


@pytest.mark.parametrize("survived", [1, 5, 7, 9, 10])
def test_an_interrupted_search_goes_on_where_it_was(
    settings: SearchSettings, ran: Ran, survived: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = settings.out.with_name("whole")
    run_search(replace(settings, out=other))
    ran.clear()

    interrupt(settings, ran, after=survived)
    run_search(replace(settings, resume=True))
    assert len(ran) == 6 + 3 + 2  # nothing twice
    scores = [{name: trial.scores for name, trial in stored(path).items()} for path in (settings.out, other)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("rung", [1, 2])
def test_what_a_killed_session_trained_but_did_not_store_is_counted(
    settings: SearchSettings, ran: Ran, rung: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that ticks at each look: 10,000 seconds a leg, only the rung's own not stored."""
    looks = itertools.count(step=10_000)
    clock = SimpleNamespace(perf_counter=lambda: float(next(looks)), process_time=lambda: float(next(looks)))
    monkeypatch.setattr("distill.leg.time", clock)
    add, lost = TrialStore.add, []

    def killed(store: TrialStore, trial: Trial) -> None:
        if trial.estimator == f"proxy after {rung} epochs" and not lost:
            lost.append(trial.architecture)
            raise KeyboardInterrupt
        add(store, trial)

    monkeypatch.setattr(TrialStore, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        run_search(settings)
    run_search(replace(settings, resume=True))
    trials = stored(settings.out, f"proxy after {rung} epochs")
    told = 20_000.0  # from the first look to the second there is one of the other clock
    for name, trial in trials.items():
        again = told if name == lost[0] else 0.0
        assert again <= trial.cpu_seconds < again + told / 2
        assert again <= trial.seconds < again + told / 2


@pytest.mark.parametrize(("strategy", "seen"), [("successive-halving", [3, 2]), ("hyperband", [1, 2])])
def test_checkpoints_of_what_is_stopped_are_dropped(
    settings: SearchSettings, ran: Ran, strategy: str, seen: list[int]
) -> None:
    """What goes on has two each, of as many trainings; of hyperband's brackets some begin later."""
    kept = []

    def look(progress: Any) -> None:
        if progress.architecture is None and progress.stage in ("proxy, 2 epochs", "proxy, 4 epochs"):
            kept.append(len(list((settings.out / CHECKPOINTS).iterdir())))

    run_search(replace(settings, strategy=strategy, repeats=2), progress=look)
    assert kept == [2 * each for each in seen]


def test_a_lost_checkpoint_costs_time_only(settings: SearchSettings, ran: Ran) -> None:
    other = settings.out.with_name("whole")
    run_search(replace(settings, out=other))
    ran.clear()

    def stop(progress: Any) -> None:
        if len(ran) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_search(settings, progress=stop)
    kept = sorted((settings.out / CHECKPOINTS).iterdir())
    assert len(kept) == 6
    kept[0].unlink()
    kept[1].write_bytes(b"no safetensors")
    for path in kept[2:]:
        path.write_bytes(path.read_bytes()[:-8])
    run_search(replace(settings, resume=True))
    scores = [{name: trial.scores for name, trial in stored(path).items()} for path in (settings.out, other)]
    assert scores[0] == scores[1]


def test_failed_architectures_have_no_place(
    settings: SearchSettings, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    from atom_nas.estimators import base

    real = base.train
    calls: list[int] = []

    def fails_sometimes(*arguments: Any, **options: Any) -> TrainingRecord:
        calls.append(1)
        if len(calls) in (1, 8):  # in the first rung, and in the second
            raise FloatingPointError("no number")
        return real(*arguments, **options)

    monkeypatch.setattr(base, "train", fails_sometimes)
    summary = run_search(settings)
    failed = [trial for trial in stored(settings.out).values() if not trial.done]
    assert summary.failed == len(failed) == 2
    assert all(trial.scores == {} and "no number" in (trial.reason or "") for trial in failed)


def test_more_samples_after_the_end_are_refused(settings: SearchSettings, ran: Ran) -> None:
    run_search(settings)
    with pytest.raises(ValueError, match="begin a new run"):
        run_search(replace(settings, samples=7, resume=True))
    run_search(replace(settings, resume=True))  # the same again is welcome
    with pytest.raises(ValueError, match="criterion"):
        run_search(replace(settings, score="validation_loss", resume=True))


def test_trainings_that_more_samples_make_needless_were_paid_for(settings: SearchSettings, ran: Ran) -> None:
    def stop(progress: Any) -> None:
        if progress.stage == "proxy, 4 epochs" and progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_search(replace(settings, samples=4, seed=3), progress=stop)
    assert len(stored(settings.out, "proxy after 4 epochs")) == 1  # by this seed it goes on no more later
    run_search(replace(settings, samples=8, seed=3, resume=True))
    parts = [stored(settings.out, f"proxy after {epochs} epochs") for epochs in (1, 2, 4)]
    for name, whole in stored(settings.out).items():
        paid = [part[name].cpu_seconds for part in parts if name in part]
        assert whole.cpu_seconds == pytest.approx(sum(paid))


def test_more_samples_are_refused_once_all_are_ranked(
    settings: SearchSettings, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(progress: Any) -> None:
        if progress.stage == "reference":
            raise KeyboardInterrupt

    referred = replace(settings, reference="real")
    with pytest.raises(KeyboardInterrupt):
        run_search(referred, progress=stop)
    with pytest.raises(ValueError, match="takes no more samples: its 6 architectures are ranked"):
        run_search(replace(referred, samples=7, resume=True))
    run_search(replace(referred, resume=True))
    assert read_record(settings.out)["strategy"]["samples"] == 6


def test_hyperband_takes_no_more_samples(settings: SearchSettings, ran: Ran) -> None:
    banded = replace(settings, strategy="hyperband")

    def stop(progress: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_search(banded, progress=stop)
    with pytest.raises(ValueError, match="hyperband shares its samples out"):
        run_search(replace(banded, samples=7, resume=True))


def test_a_list_can_be_halved(settings: SearchSettings, ran: Ran, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    names = ["w32-d1-none-relu-avg", "w32-d2-batch-relu-avg", "w32-d1-layer-relu-none"]
    listed.write_text("architecture\n" + "\n".join(names) + "\n")
    run_search(replace(settings, architectures=listed, samples=None))
    assert list(stored(settings.out)) == names
    assert sorted(trial.scores[EPOCHS] for trial in stored(settings.out).values()) == [1, 2, 4]
    strategy = "successive-halving (eta 2, rungs 3, criterion validation_accuracy) of all that were listed"
    assert strategy in write_report([settings.out]).page.read_text()
    with pytest.raises(ValueError, match=r"options\.halving was not set there and is 'hyperband' now"):
        run_search(replace(settings, architectures=listed, samples=None, strategy="hyperband", resume=True))


def test_what_a_checkpoint_must_be(tmp_path: Path) -> None:
    network = build("convnet2", (1, 8, 8), 3, stream(0))
    leg = Leg(until=3, checkpoint=tmp_path / "folder" / "c.safetensors")
    assert take_up(leg, network) is None
    momentum = tuple(torch.ones_like(parameter) for parameter in network.parameters())
    keep(leg, network, TrainingRecord((1.0, 0.5), 2.0, momentum))
    fresh = build("convnet2", (1, 8, 8), 3, stream(1))
    record = take_up(leg, fresh)
    assert record is not None
    assert record.epoch_losses == (1.0, 0.5)
    assert all(torch.equal(*pair) for pair in zip(record.momentum, momentum, strict=True))
    assert all(torch.equal(*p) for p in zip(fresh.parameters(), network.parameters(), strict=True))
    assert take_up(replace(leg, until=1), network) is None  # further than asked for
    assert take_up(leg, build("convnet3", (1, 8, 8), 3, stream(1))) is None
    save_file({"a": torch.ones(1)}, leg.checkpoint)
    assert take_up(leg, network) is None
    for odd in (momentum[:-1], momentum[::-1], (*momentum, torch.ones(1))):
        keep(leg, network, TrainingRecord((1.0,), 2.0, odd))
        assert take_up(leg, network) is None


def test_a_checkpoint_of_tied_weights_is_taken_up(tmp_path: Path) -> None:
    def tied() -> nn.Sequential:
        network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        network[1].weight = network[0].weight
        return network

    network, fresh, leg = tied(), tied(), Leg(until=3, checkpoint=tmp_path / "c.safetensors")
    keep(leg, network, TrainingRecord((1.0, 0.5), 2.0))
    assert take_up(leg, fresh) is not None
    assert fresh[0].weight is fresh[1].weight
    assert all(torch.equal(*p) for p in zip(fresh.parameters(), network.parameters(), strict=True))
    assert set(trained_network(leg.checkpoint)) == {"0.weight", "0.bias", "1.bias"}

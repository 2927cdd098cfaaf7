"""The search from settings to run folder, with trials in the test's own process."""

import json
import sqlite3
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from trial_helpers import stored, trial

from atom_nas.estimators.real import RealEstimator
from atom_nas.run_folder import read_record
from atom_nas.search import Progress, Proposals, SearchSettings, reference_sample, run_search
from atom_nas.search_plan import prepare
from atom_nas.trials import TrialStore
from distill.precision import runs_bfloat16
from distill.sources import load_dataset
from reports import write_report

Ran = list[tuple[str, str]]
FITTING, OTHER = "w32-d1-none-relu-avg", "w32-d2-batch-relu-max"


@pytest.fixture
def settings(quick: SearchSettings) -> SearchSettings:
    return replace(quick, reference_samples=3, command="atom-nas search ...")


def outcomes(path: Path, estimator: str) -> list[tuple[Any, ...]]:
    return [(t.position, t.architecture, t.status, t.scores, t.seed) for t in stored(path, estimator)]


def test_a_search_leaves_a_whole_run_folder(settings: SearchSettings, ran: Ran, digits_set: Path) -> None:
    seen: list[Progress] = []
    summary = run_search(settings, progress=seen.append)
    proxies, references = stored(settings.out, "proxy"), stored(settings.out, "real")
    assert [each.position for each in proxies] == [0, 1, 2, 3]
    assert len(ran) == 7
    assert {len(each.scores) for each in proxies} == {9}
    assert [each.scores.keys() - proxies[0].scores.keys() for each in references] == [{"test_accuracy"}] * 3
    assert (summary.proposed, summary.failed, summary.matched, summary.cached) == (4, 0, 3, 0)
    assert (settings.out / "synthetic.png").read_bytes() == (digits_set / "images.png").read_bytes()
    assert [(p.stage, p.done, p.total) for p in seen] == [
        *[("proxy", done, 4) for done in range(5)],
        *[("reference", done, 3) for done in range(4)],
    ]
    assert seen[1].score == proxies[0].scores["validation_accuracy"]


@pytest.mark.usefixtures("ran")
def test_progress_counts_trainings_by_what_they_took_as_the_proxy(settings: SearchSettings) -> None:
    seen: list[Progress] = []
    run_search(settings, progress=seen.append)
    assert {p.pieces for p in seen if p.stage == "proxy"} == {None}
    pieces = [p.pieces or 0.0 for p in seen if p.stage == "reference"]
    seconds = {trial.architecture: trial.seconds for trial in stored(settings.out, "proxy")}
    referred = [p.architecture or "" for p in seen if p.stage == "reference"][1:]
    mean = sum(seconds[name] for name in referred) / len(referred)
    assert [after - before for before, after in pairwise(pieces)] == pytest.approx(
        [seconds[name] / mean for name in referred]
    )
    seen.clear()
    run_search(replace(settings, resume=True), progress=seen.append)
    assert seen[-1].pieces == seen[-1].free == pytest.approx(3.0)


@pytest.mark.usefixtures("ran")
def test_the_record_says_what_was_done(settings: SearchSettings) -> None:
    run_search(settings)
    record = read_record(settings.out)
    assert record["complete"] is True
    assert record["dataset"]["name"] == "digits"
    assert record["dataset"]["image_shape"] == [1, 8, 8]
    assert record["synthetic"]["method"] == "random"
    assert record["synthetic"]["images"] == 100
    assert record["space"] == {"name": "convnet", "options": {}, "size": 720, "fitting": 600}
    assert record["strategy"] == {"name": "random", "options": {}, "samples": 4}
    assert record["proxy"]["training"]["epochs"] == 2
    assert record["proxy"]["validation_images"] == 50
    assert record["reference"]["kind"] == "real"
    assert record["reference"]["settings"]["training_images"] == 100
    assert (record["reference"]["samples"], record["reference"]["matched"]) == (3, 3)
    assert record["search_wall_seconds"] > 0
    assert record["reference_wall_seconds"] > 0
    assert record["command"] == "atom-nas search ..."


def test_other_estimators_score_the_same_architectures(settings: SearchSettings, ran: Ran) -> None:
    run_search(replace(settings, estimators=("snip",), reference="none"))
    names = [each.architecture for each in stored(settings.out, "proxy")]
    assert [each.architecture for each in stored(settings.out, "snip")] == names
    ran.clear()
    more = replace(settings, estimators=("snip", "synflow"), reference="none", resume=True)
    run_search(more)
    assert ran == [("synflow", name) for name in names]
    written = write_report([settings.out])
    scores = {score.name: score for score in written.reports[0].scores}
    assert {"snip", "synflow", "validation_accuracy"} <= scores.keys()
    spent = stored(settings.out, "snip")
    assert scores["snip"].seconds_each == pytest.approx(sum(each.cpu_seconds for each in spent) / len(spent))
    assert scores["parameters"].seconds_each == 0.0
    header = (settings.out / "report" / "ranking.csv").read_text().splitlines()[0].split(",")
    assert {"snip", "synflow"} <= set(header)


def test_resuming_a_whole_run_trains_nothing(settings: SearchSettings, ran: Ran) -> None:
    run_search(settings)
    before = stored(settings.out, "proxy"), stored(settings.out, "real")
    ran.clear()
    seen: list[Progress] = []
    run_search(replace(settings, resume=True, workers=5), progress=seen.append)
    assert ran == []
    assert (stored(settings.out, "proxy"), stored(settings.out, "real")) == before
    assert [p.reused for p in seen if p.done == p.total] == [4, 3]


def test_an_interrupted_run_ends_as_if_it_had_not_been(settings: SearchSettings, ran: Ran) -> None:
    run_search(settings)
    whole = outcomes(settings.out, "proxy"), outcomes(settings.out, "real")
    ran.clear()

    def interrupt(progress: Progress) -> None:
        if progress.done == 2 and not progress.reused:
            raise KeyboardInterrupt

    other = replace(settings, out=settings.out.with_name("interrupted"))
    with pytest.raises(KeyboardInterrupt):
        run_search(other, progress=interrupt)
    assert len(ran) == len(stored(other.out, "proxy")) == 2
    assert read_record(other.out)["complete"] is False
    run_search(replace(other, resume=True))
    assert (outcomes(other.out, "proxy"), outcomes(other.out, "real")) == whole
    assert len(ran) == len(set(ran)) == 4


@pytest.mark.parametrize("strategy", ["evolution", "tpe"])
def test_strategies_that_learn_are_replayed(settings: SearchSettings, ran: Ran, strategy: str) -> None:
    options = {"batch": 2}
    settings = replace(
        settings, strategy=strategy, samples=6, strategy_options=options, reference="none", epochs=1
    )
    run_search(settings)
    whole = outcomes(settings.out, "proxy")
    with sqlite3.connect(settings.out / "trials.sqlite") as connection:
        connection.execute("DELETE FROM trials WHERE position IN (1, 3, 4)")
    connection.close()
    ran.clear()
    run_search(replace(settings, resume=True))
    assert outcomes(settings.out, "proxy") == whole
    assert len(ran) == 3


def test_a_resumed_run_may_sample_more(settings: SearchSettings, ran: Ran) -> None:
    run_search(replace(settings, reference="none"))
    first = stored(settings.out, "proxy")
    run_search(replace(settings, samples=6, resume=True))
    assert stored(settings.out, "proxy")[:4] == first
    assert [each.position for each in stored(settings.out, "proxy")] == list(range(6))
    assert len(stored(settings.out, "real")) == 3
    assert len(ran) == 6 + 3


def test_what_options_a_run_was_given_it_may_sample_more(settings: SearchSettings, ran: Ran) -> None:
    learning = {"strategy": "evolution", "strategy_options": {"population_size": 2}, "reference": "none"}
    first = replace(settings, samples=4, **learning)
    run_search(first)
    begun = read_record(settings.out)["strategy"]["options"]
    run_search(replace(first, samples=20, resume=True))
    assert read_record(settings.out)["strategy"]["options"] == begun
    assert len(ran) == len(stored(settings.out, "proxy")) == 20


def test_a_second_run_takes_its_reference_from_the_cache(settings: SearchSettings, ran: Ran) -> None:
    run_search(settings)
    ran.clear()
    second = replace(settings, out=settings.out.with_name("second"), epochs=1, reference_samples=None)
    summary = run_search(second)
    assert [name for name, _ in ran].count("real") == 1
    assert (summary.matched, summary.cached) == (4, 3)
    first = {t.architecture: t for t in stored(settings.out, "real")}
    for each in stored(second.out, "real"):
        if each.cached:
            assert replace(each, cached=False) == first[each.architecture]


def test_another_reference_is_not_taken_from_the_cache(settings: SearchSettings, ran: Ran) -> None:
    run_search(settings)
    ran.clear()
    changed = replace(settings, out=settings.out.with_name("second"), reference_images=110)
    assert run_search(changed).cached == 0
    assert [name for name, _ in ran].count("real") == 3


@pytest.mark.usefixtures("ran")
def test_a_run_that_exists_is_not_overwritten(settings: SearchSettings) -> None:
    run_search(settings)
    with pytest.raises(ValueError, match="go on with the run in it by --resume"):
        run_search(settings)


@pytest.mark.usefixtures("ran")
def test_other_settings_cannot_be_resumed(settings: SearchSettings) -> None:
    run_search(replace(settings, reference="none"))
    with pytest.raises(ValueError, match=r"proxy\.training\.epochs was 2 there and is 3 now"):
        run_search(replace(settings, reference="none", epochs=3, resume=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": "convnt"}, "did you mean 'convnet'"),
        ({"strategy": "randm"}, "did you mean 'random'"),
        ({"strategy_options": {"batch": 2}}, "unknown option of the strategy 'random' 'batch'"),
        ({"score": "validation_acuracy"}, "did you mean 'validation_accuracy'"),
        ({"score": "zico"}, "--estimators zico and rank by it in a report"),
        ({"engine": "lokal"}, "did you mean 'local'"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"training": {"epoch": 2}}, "unknown training option 'epoch': did you mean 'epochs'"),
        ({"training": {"learning_rate": -1.0}}, "learning_rate must be positive"),
        ({"samples": 0}, "samples must be at least 1, not 0"),
        ({"samples": "20"}, "samples must be a whole number, not '20'"),
        ({"epochs": 2.5}, "epochs must be a whole number, not 2.5"),
        ({"repeats": True}, "repeats must be a whole number, not True"),
        (
            {"space_options": {"depth": {1, 2}}},
            r"space_options must hold numbers, text, .* not \{'depth': \{1",
        ),
        ({"training": [("epochs", 5)]}, "training must be settings by name, not"),
        ({"training_free": {"image": "real"}, "estimators": "snip"}, "unknown snip option 'image'"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"reference": "reel"}, "unknown reference 'reel': give 'real', 'none' or a CSV file"),
        ({"reference_images": 5}, "a subset of 5 images cannot hold 10 classes"),
        ({"architectures": Path("absent.csv")}, r"no file absent\.csv"),
        ({"synthetic": Path("absent")}, "absent holds no synthetic set"),
    ],
)
def test_wrong_settings_are_refused_before_any_work(
    settings: SearchSettings, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run_search(replace(settings, **changes))
    assert not settings.out.exists()


def test_more_images_than_there_are_is_said(settings: SearchSettings) -> None:
    with pytest.warns(UserWarning, match=r"99,999 images were asked for, and there are 1,211: all are used"):
        plan = prepare(replace(settings, reference="real", reference_images=99_999))
    assert plan.reference is not None
    assert plan.reference.settings()["training_images"] == 1211


def test_a_set_without_held_out_images_cannot_be_searched(settings: SearchSettings, tmp_path: Path) -> None:
    from distill.run import distill
    from distill.settings import DistillSettings

    distill(
        DistillSettings(
            dataset="digits", method="random", ipc=1, out=tmp_path / "set", validation_fraction=0.0
        )
    )
    with pytest.raises(ValueError, match="distilled with validation_fraction=0"):
        run_search(replace(settings, synthetic=tmp_path / "set"))


def test_strategies_learn_that_a_lower_loss_is_better(tmp_path: Path) -> None:
    with TrialStore.create(tmp_path / "t.sqlite") as store:
        store.add(trial(FITTING, scores={"validation_loss": 0.5, "validation_accuracy": 0.7}))
        store.add(trial(OTHER, status="failed", reason="x", scores={}))
        ensured: list[dict[str, int]] = []
        stage: Any = SimpleNamespace(ensure=ensured.append, store=store, estimator="proxy")
        assert Proposals(stage, "validation_accuracy").evaluate([FITTING, OTHER]) == [0.7, None]
        by_loss = Proposals(stage, "validation_loss")
        assert by_loss.evaluate([OTHER, FITTING]) == [None, -0.5]
        assert by_loss.evaluate([FITTING]) == [-0.5]
        assert ensured[1:] == [{OTHER: 0, FITTING: 1}, {FITTING: 1}]


def test_a_larger_reference_sample_holds_the_smaller() -> None:
    scored = [trial(f"a{i}", position=i) for i in range(20)]
    small, large = reference_sample(scored, 5, seed=0), reference_sample(scored, 9, seed=0)
    assert len(small) == 5
    assert {t.architecture for t in small} < {t.architecture for t in large}
    assert [t.position for t in large] == sorted(t.position for t in large)
    assert small != reference_sample(scored, 5, seed=1)
    assert reference_sample(scored, None, seed=0) == scored
    assert reference_sample(scored, 99, seed=0) == scored


@pytest.mark.usefixtures("ran")
def test_the_runs_picture_is_drawn_and_not_a_file_of_the_set(
    settings: SearchSettings, tmp_path: Path
) -> None:
    bare, secret = tmp_path / "bare", tmp_path / "secret"
    bare.mkdir()
    secret.write_text("private")
    for name in ("card.json", "synthetic.safetensors"):
        (bare / name).write_bytes((settings.synthetic / name).read_bytes())
    (bare / "images.png").symlink_to(secret)
    run_search(replace(settings, synthetic=bare, reference="none", samples=1))
    drawn = (settings.out / "synthetic.png").read_bytes()
    assert drawn == (settings.synthetic / "images.png").read_bytes()
    assert json.loads((settings.out / "run.json").read_text())["complete"] is True


@pytest.mark.usefixtures("ran")
def test_a_narrowed_space_is_the_same_however_it_was_written(settings: SearchSettings) -> None:
    narrow = replace(settings, reference="none", samples=2)
    run_search(replace(narrow, space_options={"width": 32}))
    run_search(replace(narrow, space_options={"width": [32]}, resume=True))
    assert json.loads((settings.out / "run.json").read_text())["space"]["options"] == {"width": [32]}


@pytest.mark.usefixtures("ran")
def test_failed_reference_trials_are_counted_and_named(
    settings: SearchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no memory left")

    monkeypatch.setattr(RealEstimator, "score", fail)
    summary = run_search(settings)
    assert (summary.failed, summary.reference_failed) == (0, settings.reference_samples)
    assert summary.reference_reason == "RuntimeError: no memory left"


@pytest.mark.skipif(runs_bfloat16(torch.device("cpu")), reason="needs a processor without bfloat16")
@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize("of", ["training", "reference_training"])
def test_a_precision_that_the_machine_lacks_is_replaced_and_said(settings: SearchSettings, of: str) -> None:
    asked: dict[str, Any] = {of: {"precision": "bfloat16"}}
    summary = run_search(replace(settings, **asked))
    assert "computing in float32: this cpu has no bfloat16" in str(summary.fallback)
    assert (summary.failed, summary.reference_failed) == (0, 0)
    record = read_record(settings.out)
    assert record["proxy"]["training"]["precision"] == "float32"
    assert record["reference"]["settings"]["training"]["precision"] == "float32"


@pytest.mark.usefixtures("ran")
def test_the_costliest_references_come_first(settings: SearchSettings, ran: Ran) -> None:
    run_search(settings)
    costs = {trial.architecture: trial.scores["flops"] for trial in stored(settings.out, "proxy")}
    trained = [costs[architecture] for estimator, architecture in ran if estimator == "real"]
    assert trained == sorted(trained, reverse=True)


@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize("strategy", ["evolution", "tpe"])
def test_a_learning_strategy_may_go_on_to_more_samples(settings: SearchSettings, strategy: str) -> None:
    """Its defaults depend on the samples: those of the first session hold."""
    narrow = {"width": [32], "depth": [1], "pooling": ["max"]}
    small = replace(settings, strategy=strategy, samples=6, reference="none", epochs=1, space_options=narrow)
    run_search(small)
    first = outcomes(settings.out, "proxy")
    run_search(replace(small, samples=12, resume=True))
    later = outcomes(settings.out, "proxy")
    assert (len(first), len(later)) == (6, 12)
    assert later[:6] == first


@pytest.mark.usefixtures("ran")
@pytest.mark.filterwarnings("ignore:1,000,000 images were asked for")
@pytest.mark.parametrize("count", [None, 20, 10**6])
def test_the_largest_class_is_of_the_images_scored_on(settings: SearchSettings, count: int | None) -> None:
    run_search(replace(settings, reference="none", validation_images=count))
    labels = load_dataset("digits").carve_validation(0.1, 0)[1].labels
    whole = int(labels.bincount().max()) / len(labels)
    record = read_record(settings.out)["dataset"]["largest_class"]
    assert record["validation"] == (0.1 if count == 20 else whole)
    assert whole > 0.1

"""Ranking by the mean of an architecture's ranks by several scores, in a search."""

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr
from trial_helpers import stored

import atom_nas
from atom_nas.estimators import OF_TRAINING, TRAINING_FREE
from atom_nas.resuming import search_settings
from atom_nas.run_folder import read_record
from atom_nas.search import run_search
from atom_nas.search_plan import prepare
from atom_nas.settings import SearchSettings
from reports import write_report
from reports.scores import MEAN_OF_RANKS, describe_score

Ran = list[tuple[str, str]]
PARTS = ("validation_loss", "final_training_loss", "synflow")


@pytest.fixture
def settings(quick: SearchSettings) -> SearchSettings:
    narrow = {"space_options": {"width": [32], "depth": [1]}, "samples": 6}
    return replace(quick, reference="none", score=MEAN_OF_RANKS, combine=PARTS, **narrow)


def expected(run: Path, parts: Sequence[str] = PARTS) -> list[str]:
    """The architectures, the best first, by scipy's ranks."""
    trials = stored(run, "proxy")
    names = [each.architecture for each in trials]
    total = np.zeros(len(names))
    for part in parts:
        rows = stored(run, part) if part in TRAINING_FREE else trials
        scores = {each.architecture: each.scores[part] for each in rows}
        total += rankdata([describe_score(part).sign * scores[name] for name in names])
    return [names[i] for i in np.argsort(-total, kind="stable")]


def ranking(run: Path) -> list[str]:
    with (run / "report" / "ranking.csv").open(newline="", encoding="utf-8") as file:
        return [row["architecture"] for row in csv.DictReader(file)]


def test_the_report_confirmation_and_loading_go_by_it(settings: SearchSettings, ran: Ran) -> None:
    run_search(replace(settings, confirm=2, confirm_epochs=1))
    order = expected(settings.out)
    assert order != expected(settings.out, PARTS[:1])
    report = write_report(settings.out).report
    assert ranking(settings.out) == order
    assert sorted(name for estimator, name in ran if estimator == "confirm") == sorted(order[:2])
    for rank, name in enumerate(order, start=1):
        loaded = atom_nas.load_architecture(settings.out, rank, weights=False)
        assert loaded.card["architecture"] == name
    assert report.score == MEAN_OF_RANKS
    assert report.confirmed is not None
    assert {row.architecture: row.proxy_rank for row in report.confirmed.rows} == {order[0]: 1, order[1]: 2}
    text = (settings.out / "report" / "report.md").read_text(encoding="utf-8")
    assert "Ranked by: combination: mean of ranks of validation loss, final training loss, SynFlow, " in text


@pytest.mark.usefixtures("ran")
def test_a_weight_counts_in_the_search_and_when_it_goes_on(settings: SearchSettings) -> None:
    parts = ("synflow", "validation_loss=7")
    heavy = replace(settings, combine=(" synflow", "validation_loss = 7.0"))
    assert heavy.combine == parts
    assert (heavy.criterion, heavy.estimators) == ("validation_loss", ("synflow",))
    run_search(heavy)
    write_report(heavy.out)
    order = expected(heavy.out, ["synflow", *["validation_loss"] * 7])
    assert ranking(heavy.out) == order
    assert order != expected(heavy.out, ["synflow", "validation_loss"])
    assert read_record(heavy.out)["combine"] == list(parts)
    given = {"synthetic": heavy.synthetic, "out": heavy.out, "command": "", "space": heavy.space}
    assert search_settings(set(), **given, resume=True).combine == parts


@pytest.mark.usefixtures("ran")
def test_what_the_parts_took_is_counted(settings: SearchSettings) -> None:
    run_search(replace(settings, reference="real"))
    proxy, synflow, real = (
        {each.architecture: each.cpu_seconds for each in stored(settings.out, name)}
        for name in ("proxy", "synflow", "real")
    )
    report = write_report(settings.out).report
    both = sum(proxy.values()) + sum(synflow.values())
    assert report.cpu_seconds.search == pytest.approx(both)
    assert report.savings.proxy_seconds == pytest.approx(both)
    assert report.savings.speedup_search == pytest.approx(sum(real.values()) / both)
    with pytest.raises(ValueError, match=r"run run ranks by the mean of ranks .* \(--score NAME\)"):
        write_report(settings.out, combine=())
    free = write_report(settings.out, score="synflow").report
    assert free.cpu_seconds.search == pytest.approx(sum(synflow.values()))
    assert free.savings.proxy_seconds == pytest.approx(sum(synflow.values()))
    counted = write_report(settings.out, score="parameters").report
    assert counted.cpu_seconds.search == pytest.approx(sum(proxy.values()))
    alone = write_report(settings.out, score="validation_loss", combine=()).report
    assert alone.cpu_seconds.search == pytest.approx(sum(proxy.values()))


@pytest.mark.usefixtures("ran")
def test_the_luck_of_the_seed_is_told_of_the_mean(settings: SearchSettings) -> None:
    run_search(replace(settings, samples=12, repeats=2, epochs=1, combine=("validation_loss", "synflow")))
    trials = stored(settings.out, "proxy")
    free = {each.architecture: each.scores["synflow"] for each in stored(settings.out, "synflow")}
    rows = [
        rankdata([-each.scores[f"validation_loss#{number}"] for each in trials])
        + rankdata([free[each.architecture] for each in trials])
        for number in (1, 2)
    ]
    repeats = write_report(settings.out).report.repeats
    assert repeats is not None
    assert repeats.single.value == pytest.approx(spearmanr(*rows).statistic)


@pytest.mark.usefixtures("ran")
def test_strategies_learn_from_the_first_score_of_a_training(settings: SearchSettings) -> None:
    learning = {"strategy": "evolution", "samples": 10, "strategy_options": {"population_size": 4}}
    parts = ("synflow", "parameters", "final_training_loss", "validation_accuracy")
    combined = replace(settings, **{**learning, "combine": parts})
    assert combined.criterion == "final_training_loss"
    run_search(combined)
    run_search(replace(combined, score="final_training_loss", combine=(), out=settings.out / "alone"))
    proposed = [
        [each.architecture for each in stored(folder, "proxy")]
        for folder in (settings.out, settings.out / "alone")
    ]
    assert proposed[0] == proposed[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"combine": ("validation_loss",)}, "at least two scores, not 'validation_loss' alone"),
        ({"combine": ("validation_loss", "synflo")}, "score to combine 'synflo'"),
        ({"combine": ("synflow", "flops")}, f"must come from a training: {', '.join(OF_TRAINING)}"),
        (
            {"combine": ("training_loss_decay=2", "flops"), "epochs": 1},
            "stop after 1 of 1: give 2 --epochs or more",
        ),
        (
            {
                "combine": ("training_loss_decay", "flops"),
                "epochs": 9,
                "strategy": "successive-halving",
            },
            "stop after 1 of 9: give 10 --epochs or more",
        ),
        ({"combine": ("validation_loss=-1", "synflow")}, "the weight of validation_loss must be a number"),
        ({"score": "mean_of_rank"}, "score 'mean_of_rank'"),
    ],
)
def test_wrong_combinations_are_refused(settings: SearchSettings, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        prepare(replace(settings, **changes))
    assert len(str(caught.value).splitlines()) == 1


def test_without_parts_of_its_own_it_is_the_reports_mean(settings: SearchSettings) -> None:
    plain = replace(settings, combine=(), estimators=("naswot",))
    assert plain.criterion == "validation_accuracy"
    assert plain.estimators == ("naswot",)
    assert replace(plain, combine=PARTS).estimators == ("naswot", "synflow")


def test_a_run_from_before_its_recipe_combined_goes_on_as_it_began(tmp_path: Path) -> None:
    """The recipe of the space brings a combination, which the record does not know."""
    run = tmp_path / "run"
    run.mkdir()
    kept = {"space": "nasbench201", "synthetic": "set", "score": "training_loss_decay", "repeats": 3}
    record = {"format_version": 1, "command": "atom-nas search set", "settings": kept}
    (run / "run.json").write_text(json.dumps(record))
    given = {"synthetic": tmp_path, "out": run, "command": "", "combine": ("",), "space": "nasbench201"}
    later = search_settings({"space"}, **given, resume=True)
    assert (later.score, later.combine, later.estimators) == ("training_loss_decay", (), ())
    fresh = search_settings({"space"}, **{**given, "out": tmp_path / "new"}, resume=False)
    assert (fresh.score, fresh.estimators) == (MEAN_OF_RANKS, ("synflow", "naswot", "jacov", "zico"))


def test_the_command_takes_it(settings: SearchSettings) -> None:
    words = [
        "search",
        str(settings.synthetic),
        "--out",
        str(settings.out),
        "--samples",
        "4",
        "--workers",
        "1",
    ]
    few = ["--epochs", "1", "--reference", "none", "--set-space", "width=[32]", "--set-space", "depth=[1]"]
    combined = ["--score", "mean_of_ranks", "--combine", "final_training_loss,synflow"]
    command = [sys.executable, "-m", "atom_nas", *words, *few, *combined]
    subprocess.run(command, capture_output=True, text=True, check=True)
    assert ranking(settings.out) == expected(settings.out, ("final_training_loss", "synflow"))
    again = subprocess.run([*command[:-1], "zico"], capture_output=True, text=True, check=False)
    assert (again.returncode, "one score" in again.stderr or "two scores" in again.stderr) == (2, True)


def test_a_strategy_that_learnt_from_a_score_goes_on_by_it(settings: SearchSettings, ran: Ran) -> None:
    learning = replace(settings, strategy="evolution", strategy_options={"batch": 2})
    run_search(learning)
    order = expected(settings.out)
    ran.clear()
    with pytest.raises(ValueError, match=r"with other settings: combine was \['validation_loss', 'final_"):
        run_search(replace(learning, combine=PARTS[1:], resume=True))
    with pytest.raises(ValueError, match="settings: score was 'mean_of_ranks' there"):
        run_search(replace(learning, score="final_training_loss", resume=True))
    run_search(replace(learning, resume=True))
    assert expected(settings.out) == order
    assert ran == []


def test_a_run_that_learns_from_none_may_rank_by_another(settings: SearchSettings, ran: Ran) -> None:
    run_search(settings)
    ran.clear()
    run_search(
        replace(settings, score="validation_loss", combine=(), resume=True, confirm=1, confirm_epochs=1)
    )
    by_loss = sorted(stored(settings.out, "proxy"), key=lambda each: each.scores["validation_loss"])
    assert [architecture for _, architecture in ran] == [by_loss[0].architecture]
    write_report(settings.out)
    assert ranking(settings.out) == [each.architecture for each in by_loss]
    run_search(replace(settings, combine=("validation_loss", "synflow", "flops"), resume=True))
    assert read_record(settings.out)["combine"] == ["validation_loss", "synflow", "flops"]
    assert read_record(settings.out)["score"] == MEAN_OF_RANKS

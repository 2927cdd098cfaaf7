"""What stages and rulers cost: which seconds count, and whose."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from reports import read_run
from reports.analysis import analyse
from reports.costs import compute_seconds
from reports.occupancy import CARD_SECONDS, with_card_seconds

BESIDE = """
INSERT INTO trials SELECT '{name}', architecture, position, 'done', NULL, {scores},
{each}, {each}, NULL, 0, seed, device FROM trials
WHERE estimator = 'proxy' AND status = 'done' AND position < {first}
"""


def beside(name: str, scores: str, each: float, first: int = 20) -> str:
    """Trials of another estimator, of the first architectures that the proxy scored."""
    return BESIDE.format(name=name, scores=scores, each=each, first=first)


def execute(folder: Path, *statements: str) -> Path:
    with sqlite3.connect(folder / "trials.sqlite") as store:
        for statement in statements:
            store.execute(statement)
    store.close()
    return folder


def test_references_of_a_gpu_are_no_core_seconds(make_run: Any) -> None:
    folder = execute(make_run(), "UPDATE trials SET device = 'cuda' WHERE estimator = 'real'")
    assert compute_seconds(read_run(folder)) == (CARD_SECONDS, 60.0)


def test_core_seconds_are_those_of_all_cores_and_of_what_failed_too(make_run: Any) -> None:
    folder = execute(
        make_run(estimators={"synflow": {}}),
        beside("synflow", "json_object('synflow', position)", 3.0),
        beside("confirm", "json_object('validation_accuracy', 0.5, 'test_accuracy', 0.5)", 100.0, first=9),
        "UPDATE trials SET status = 'failed', reason = 'x', scores = '{}' "
        "WHERE estimator = 'real' AND position = 7",
        "UPDATE trials SET cpu_seconds = 2 * seconds",
    )
    run = read_run(folder)
    report = analyse(run)
    cpu, scored = report.cpu_seconds, int((run.trials["status"] == "done").sum())
    assert (cpu.search, cpu.reference, cpu.confirm) == (
        80.0,
        24.0 * len(run.reference),
        200.0 * len(run.confirmed),
    )
    assert report.confirmed is not None
    assert report.confirmed.seconds == cpu.confirm > 0
    assert report.others is not None
    assert (report.others.seconds, report.others.cpu_seconds) == (6.0 * scored, 6.0 * scored)
    done = set(run.reference["architecture"][run.reference["status"] == "done"])
    both = done & set(run.trials["architecture"][run.trials["status"] == "done"])
    assert report.savings.pairs == len(both) < scored
    assert report.savings.reference_seconds == 24.0 * len(run.reference)


def test_what_an_estimator_has_not_scored_yet_has_no_cost(make_run: Any) -> None:
    folder = make_run(estimators={"synflow": {}})
    execute(folder, beside("synflow", "json_object('synflow', position)", 3.0, first=15))
    report = analyse(read_run(folder), score="synflow")
    assert report.cpu_seconds.search == report.savings.proxy_seconds
    assert report.savings.proxy_seconds == 3.0 * read_run(folder).trials["seconds:synflow"].notna().sum() > 0


def test_early_stopping_needs_no_set(make_run: Any) -> None:
    folder = execute(make_run(estimators={"early-stopping": {}}), beside("early-stopping", "scores", 1.4))
    report = analyse(read_run(folder), score="early-stopping:validation_accuracy")
    assert report.savings.distill_seconds == report.cpu_seconds.distill == report.wall_seconds.distill == 0


def test_of_confirmations_on_a_shared_card_too_each_counts_its_share(
    fabricated: Any, trial: Any, info: Any, tmp_path: Path
) -> None:
    scores = [(f"a{i}", {"validation_accuracy": i / 20}) for i in range(20)]
    proxy = [trial(*each, seconds=2.0, device="cuda") for each in scores]
    confirmed = [trial(*each, seconds=100.0, device="cuda") for each in scores[:4]]
    said = info("none", device="cuda", workers=4, search_wall_seconds=10.0, confirm_wall_seconds=200.0)
    said["synthetic"]["device"] = "cuda"
    run = read_run(fabricated(proxy, (), said, confirmed=confirmed).write(tmp_path / "run"))
    assert with_card_seconds(run).confirmed[CARD_SECONDS].tolist() == pytest.approx([50.0] * 4)


def test_what_a_cpu_trained_shares_no_card(make_run: Any) -> None:
    folder = execute(
        make_run(reference_wall_seconds=60.0),
        "UPDATE trials SET device = 'cuda' WHERE estimator = 'real' AND position >= 10",
    )
    reference = with_card_seconds(read_run(folder)).reference
    on_cpu = reference[reference["device"] == "cpu"][CARD_SECONDS]
    on_card = reference[reference["device"] == "cuda"][CARD_SECONDS]
    assert on_cpu.tolist() == [12.0] * len(on_cpu)
    assert len(on_card) > 0
    assert on_card.max() < 12.0

"""Architectures that take longer than they may."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_local_engine import engine, job
from trial_helpers import CountingEstimator, stored
from typer.testing import CliRunner

from atom_nas.cli import app
from atom_nas.engines import local
from atom_nas.engines.base import Job, Outcome
from atom_nas.halving import Rung
from atom_nas.runner import Progress
from atom_nas.search import SearchSettings, run_search


def test_an_architecture_that_hangs_is_a_failed_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_STOP_SECONDS", 0.2)
    jobs = [replace(job("hangs"), limit=1.0), job("fine-1"), job("fine-2")]
    with engine(CountingEstimator(), workers=2) as workers:
        outcomes = {outcome.job.architecture: outcome for outcome in workers.run(jobs)}
    assert outcomes["hangs"].reason == "not done after 1 seconds, the limit"
    assert outcomes["hangs"].seconds > 1
    assert outcomes["hangs"].scores == {}
    assert outcomes["fine-1"].reason is outcomes["fine-2"].reason is None


def test_the_limit_is_the_searchs_and_may_be_lifted(
    quick: SearchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_WAIT_SECONDS", 0.0)
    settings = replace(quick, samples=2, epochs=20)
    ended = run_search(replace(settings, trial_limit=1e-6))
    assert ended.reasons == {"not done after 1e-06 seconds, the limit": 2}
    assert stored(settings.out, "real") == []
    same = run_search(replace(settings, trial_limit=1e-6, resume=True))
    assert same.failed == 2
    lifted = run_search(replace(settings, resume=True))
    assert lifted.failed == 0
    assert [trial.position for trial in stored(settings.out, "proxy")] == [0, 1]
    assert len(stored(settings.out, "real")) == 2  # which has no limit


def test_the_command_takes_it_and_says_why_architectures_failed(
    quick: SearchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_WAIT_SECONDS", 0.0)
    few = ["--samples", "1", "--epochs", "20", "--reference", "none", "--workers", "1"]
    words = ["search", str(quick.synthetic), *few, "--trial-limit", "1e-6", "--out", str(quick.out)]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 2
    assert "none of the 1 architectures could be scored (e.g. not done after 1e-06 seconds" in said.stderr
    assert stored(quick.out, "proxy")[0].status == "failed"


def test_a_limit_of_nothing_is_refused(quick: SearchSettings) -> None:
    for limit, said in ((0.0, "0"), (float("inf"), "inf"), (float("nan"), "nan")):
        with pytest.raises(ValueError, match=f"^trial_limit must be a number .* above 0, not {said}$"):
            replace(quick, trial_limit=limit)


def test_what_a_strategy_has_learnt_from_is_not_tried_again(
    quick: SearchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_WAIT_SECONDS", 0.0)
    learning = {"strategy": "evolution", "strategy_options": {"batch": 2}, "reference": "none"}
    settings = replace(quick, epochs=20, **learning)
    run_search(replace(settings, trial_limit=1e-6))
    assert run_search(replace(settings, trial_limit=60.0, resume=True)).failed == 4
    assert len(stored(settings.out, "proxy")) == 4


def test_what_is_tried_again_stays_until_it_is_done_and_costs_both(
    quick: SearchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(quick, samples=2, epochs=20, reference="none", workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(local, "_WAIT_SECONDS", 0.0)
        run_search(replace(settings, trial_limit=1e-6))
    ended = stored(quick.out, "proxy")

    def stop(progress: Progress) -> None:
        if progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_search(replace(settings, resume=True), progress=stop)
    first, second = stored(quick.out, "proxy")
    assert (first.status, second) == ("done", ended[1])
    alone = run_search(replace(settings, out=quick.out.with_name("alone")))
    run_search(replace(settings, resume=True))
    for trial, before, other in zip(
        stored(quick.out, "proxy"), ended, stored(alone.path, "proxy"), strict=True
    ):
        assert trial.seconds > before.seconds
        assert trial.cpu_seconds > before.cpu_seconds
        assert trial.scores == other.scores


CELLS = [  # the second and third are one network, whose own name is none of these
    "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|",
    "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|",
    "|nor_conv_1x1~0|+|nor_conv_3x3~0|none~1|+|none~0|skip_connect~1|none~2|",
    "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|nor_conv_1x1~1|skip_connect~2|",
    "|avg_pool_3x3~0|+|none~0|nor_conv_1x1~1|+|none~0|none~1|skip_connect~2|",
]


def of_cells(settings: SearchSettings, listed: Path) -> SearchSettings:
    """The same of these cells, by one training each."""
    listed.write_text("architecture\n" + "".join(f"{cell}\n" for cell in CELLS))
    small = {"space_options": {"cells": 1, "channels": 4}, "score": "validation_accuracy", "combine": ()}
    cells = {"space": "nasbench201", "samples": None, "architectures": listed, "repeats": 1, **small}
    return replace(settings, **cells)


@pytest.mark.parametrize("strategy", ["random", "successive-halving", "asha"])
def test_a_network_that_takes_too_long_is_tried_by_one_of_its_names(
    quick: SearchSettings, strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_WAIT_SECONDS", 0.0)
    plain = replace(quick, epochs=20, reference="none", strategy=strategy)
    settings = replace(of_cells(plain, tmp_path / "cells.csv"), samples=5)
    ended = run_search(replace(settings, trial_limit=1e-6))
    assert ended.reasons == {"not done after 1e-06 seconds, the limit": 5}
    seconds = {trial.architecture: trial.seconds for trial in stored(quick.out, "proxy")}
    assert [name for name in CELLS if not seconds[name]] in ([CELLS[1]], [CELLS[2]])
    if strategy == "random":
        assert run_search(replace(settings, resume=True)).failed == 0


@pytest.mark.parametrize("space", ["convnet", "nasbench201"])
def test_rungs_share_one_limit(
    quick: SearchSettings, space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Job] = []
    run = local.LocalEngine.run

    def recorded(self: local.LocalEngine, jobs: list[Job], on_wait: Any = None) -> Iterator[Outcome]:
        given.extend(jobs)
        return run(self, jobs, on_wait)

    monkeypatch.setattr(local.LocalEngine, "run", recorded)
    settings = replace(quick, samples=4, epochs=4, reference="none", trial_limit=900.0)
    if space == "nasbench201":
        settings = of_cells(settings, tmp_path / "cells.csv")
    options = {"strategy": "successive-halving", "strategy_options": {"eta": 2, "rungs": 2}}
    run_search(replace(settings, **options))
    first = {trial.architecture: trial.seconds for trial in stored(quick.out, Rung(2).stored_as)}
    later = [job for job in given if job.leg and job.leg.until == 4 and not job.known]
    assert {job.used for job in given if job.leg and job.leg.until == 2} == {0.0}
    assert later
    for each in later:
        names = CELLS[1:3] if each.architecture in CELLS[1:3] else [each.architecture]
        assert each.used == sum(first[name] for name in names) > 0
    assert {job.limit for job in given} == {900.0}


def test_a_limit_that_is_nearly_used_up_ends_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_STOP_SECONDS", 0.2)
    with engine(CountingEstimator()) as workers:
        (outcome,) = workers.run([replace(job("hangs"), limit=900.0, used=899.5)])
    assert outcome.reason == "not done after 900 seconds, the limit"
    assert outcome.cpu_seconds < outcome.seconds < 60

"""Seconds on a GPU that several workers share."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from atom_nas.terminal.summary import show_essence
from reports import read_run, write_report
from reports.analysis import analyse
from reports.document import Report
from reports.occupancy import CARD_SECONDS, share_of_card, with_card_seconds

pytestmark = pytest.mark.usefixtures("without_drawing")
SAID = "4 workers shared the GPU: of the seconds of a trial 25% counts as its own"


@pytest.fixture
def shared(fabricated: Any, trial: Any, info: Any, tmp_path: Path) -> Any:
    """A run of 20 proxy trials of 2 s, and 20 references of 12 s of which some are from the cache."""

    def write(name: str = "run", *, cached: int = 0, device: str = "cuda", **changes: Any) -> Path:
        scored = [(f"a{i}", i / 20) for i in range(20)]
        proxy = [
            trial(each, {"validation_accuracy": value}, seconds=2.0, device=device) for each, value in scored
        ]
        real = [
            trial(each, {"test_accuracy": value}, seconds=12.0, device=device, cached=i < cached)
            for i, (each, value) in enumerate(scored)
        ]
        said = info(device=device, workers=4, **{"search_wall_seconds": 10.0} | changes)
        said["synthetic"]["device"] = device
        written: Path = fabricated(proxy, real, said).write(tmp_path / name)
        return written

    return write


def report_of(folder: Path) -> Report:
    return analyse(read_run(folder))


def test_trials_together_take_as_long_as_their_stage(shared: Any) -> None:
    report = report_of(shared(reference_wall_seconds=60.0))
    assert report.savings.proxy_seconds == pytest.approx(10.0)
    assert report.savings.reference_seconds == pytest.approx(60.0)
    assert report.savings.speedup_search == pytest.approx(6.0)
    assert report.savings.speedup_total == pytest.approx(60 / (60 + 10))
    assert report.default.seconds_each == pytest.approx(0.5)
    assert sum(note.startswith(SAID) for note in report.notes) == 1


def test_a_trial_is_never_longer_than_it_was(shared: Any) -> None:
    """One worker's stage takes a little longer than its trials."""
    report = report_of(shared(search_wall_seconds=43.0, reference_wall_seconds=250.0))
    assert report.savings.proxy_seconds == pytest.approx(40.0)
    assert report.savings.speedup_total == pytest.approx(240 / (60 + 40))
    assert not any("shared the GPU" in note for note in report.notes)


@pytest.mark.parametrize(("cached", "wall", "each"), [(10, 40.0, 4.0), (20, 1.0, 3.0)])
def test_trials_of_the_cache_count_like_the_stages_own(
    shared: Any, cached: int, wall: float, each: float
) -> None:
    """Where it has none of its own, like the proxy's."""
    run = with_card_seconds(read_run(shared(cached=cached, reference_wall_seconds=wall)))
    assert run.reference[CARD_SECONDS].tolist() == pytest.approx([each] * 20)


def test_on_a_cpu_no_turns_are_taken(shared: Any) -> None:
    run = read_run(shared(device="cpu"))
    assert share_of_card(run) == 1.0
    assert with_card_seconds(run).trials[CARD_SECONDS].tolist() == [2.0] * 20
    assert analyse(run).savings.proxy_seconds == pytest.approx(40.0)


def test_the_unit_is_that_of_all_that_was_measured(
    shared: Any, make_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    show_essence(write_report(shared(reference_wall_seconds=60.0)))
    assert "compute: distilling 1 min 0 s, proxy 10.0 s, reference 1 min 0 s" in capsys.readouterr().out
    mixed = make_run("mixed", synthetic={"method": "atom", "distill_seconds": 60.0, "device": "cuda"})
    show_essence(write_report(mixed))
    assert "compute: distilling 1 min 0 s, proxy 40.0 s" in capsys.readouterr().out


def test_trainings_beside_the_proxy_have_wall_time_of_their_own(shared: Any) -> None:
    folder = shared(estimators={"early-stopping": {}}, beside_wall_seconds=7.0, reference_wall_seconds=60.0)
    with sqlite3.connect(folder / "trials.sqlite") as store:
        store.execute(
            "INSERT INTO trials SELECT 'early-stopping', architecture, position, status, reason, scores, "
            "1.4, cpu_seconds, peak_memory_mb, cached, seed, device FROM trials WHERE estimator = 'proxy'"
        )
    store.close()
    by_proxy, beside = (
        analyse(read_run(folder), score=f"{name}validation_accuracy") for name in ("", "early-stopping:")
    )
    assert (by_proxy.wall_seconds.search, beside.wall_seconds.search) == (10.0, 7.0)
    assert beside.savings.proxy_seconds == pytest.approx(7.0)
    assert by_proxy.savings.proxy_seconds == pytest.approx(10.0)

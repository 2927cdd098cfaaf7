"""Starting and resuming a run."""

import json
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from trial_helpers import trial

from atom_nas.run_folder import first_difference, open_run, read_record
from atom_nas.search import run_search
from atom_nas.settings import SearchSettings
from atom_nas.trials import TrialStore


def record(**changes: Any) -> dict[str, Any]:
    made = {
        "format_version": 1,
        "seed": 0,
        "dataset": {"fingerprint": "sha256:0"},
        "synthetic": {"directory": "a", "fingerprint": "sha256:1"},
        "space": {"name": "convnet", "options": {}},
        "strategy": {"name": "random", "options": {}, "samples": 8},
        "score": "validation_accuracy",
        "proxy": {"training": {"epochs": 20, "learning_rate": 0.01}},
        "reference": {"kind": "real", "settings": {"training": {"epochs": 5}}, "samples": 4},
        "workers": 2,
        "device": "cpu",
        "search_wall_seconds": 0.0,
        "reference_wall_seconds": None,
    }
    return made | changes


def start(path: Path, **changes: Any) -> None:
    open_run(path, record(**changes), resume=False).close()


def resume(path: Path, **changes: Any) -> None:
    open_run(path, record(**changes), resume=True).close()


def test_a_run_is_begun_with_record_and_store(tmp_path: Path) -> None:
    start(tmp_path / "new" / "run")
    assert read_record(tmp_path / "new" / "run") == record()
    assert (tmp_path / "new" / "run" / "trials.sqlite").is_file()


def test_a_taken_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty: go on with the run in it by --resume"):
        start(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(ValueError, match=r"is not a run folder: it has no run\.json"):
        resume(tmp_path)


def test_what_cannot_hold_a_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="run is a file"):
        start(tmp_path / "run")
    with pytest.raises(ValueError, match=r"a/b cannot be made, as .*run is no folder: choose another"):
        start(tmp_path / "run" / "a" / "b")
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    with pytest.raises(ValueError, match=f"new cannot be written, as {tmp_path} may not be: choose another"):
        start(tmp_path / "new")


def test_the_place_is_looked_at_before_the_set_is_read(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty: go on with the run in it by --resume"):
        run_search(SearchSettings(synthetic=tmp_path / "absent", out=tmp_path))


def test_nothing_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no run to resume at .*without --resume"):
        resume(tmp_path / "run")


def test_a_run_killed_before_it_began_can_be_resumed(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / ".run.json.17.tmp").write_text("{")
    resume(tmp_path)
    assert read_record(tmp_path) == record()


@pytest.mark.parametrize("left", [None, b""], ids=["gone", "empty"])
def test_a_run_without_its_trials_is_not_begun_anew_unnoticed(tmp_path: Path, left: bytes | None) -> None:
    start(tmp_path / "run", search_wall_seconds=3.5)
    store = tmp_path / "run" / "trials.sqlite"
    store.unlink()
    if left is not None:
        store.write_bytes(left)
    with pytest.raises(ValueError, match=r"trials\.sqlite, which holds the run's trials, is empty or gone"):
        resume(tmp_path / "run")


@pytest.mark.parametrize("content", ["{", "[]", '{"seed": 0}', r'{"format_version": 1, "command": "\ud800"}'])
def test_a_damaged_record_is_an_error(tmp_path: Path, content: str) -> None:
    start(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        resume(tmp_path / "run")


@pytest.mark.parametrize("estimators", [5, [1], {"synflow": 5}])
def test_damaged_estimators_are_an_error_before_any_work(tmp_path: Path, estimators: Any) -> None:
    start(tmp_path / "run", estimators=estimators)
    with pytest.raises(ValueError, match=r"run\.json is damaged .* estimators"):
        resume(tmp_path / "run")


def test_another_format_is_an_error(tmp_path: Path) -> None:
    start(tmp_path / "run", format_version=2)
    with pytest.raises(ValueError, match="has format 2, not 1"):
        resume(tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"seed": 1}, "seed was 0 there and is 1 now"),
        (
            {"synthetic": {"directory": "a", "fingerprint": "x"}},
            "it was begun with the set a, and a holds other images",
        ),
        ({"dataset": {"fingerprint": "x"}}, "it was begun with the set a, and a is of other real images"),
        ({"seed": 2}, "and is 2 now; give it as it was, or choose another --out"),
        ({"proxy": {"training": {"epochs": 30, "learning_rate": 0.1}}}, "proxy.training.epochs was 20 there"),
        ({"proxy": {"training": {"epochs": 20}}}, "learning_rate was 0.01 there and is not set now"),
        ({"strategy": {"name": "grid", "options": {}, "samples": 8}}, "strategy.name was 'random' there"),
        (
            {"space": {"name": "convnet", "options": {"a": 1}}},
            "options.a was not set there and is 1 now",
        ),
        ({"device": "cuda"}, "device was 'cpu' there and is 'cuda' now"),
        ({"reference": {"kind": "none", "settings": {}}}, "reference.kind was 'real' there"),
        ({"reference": {"kind": "real", "settings": {}}}, "reference.settings.training was"),
    ],
)
def test_other_settings_are_refused_and_named(tmp_path: Path, changes: Any, difference: str) -> None:
    start(tmp_path / "run")
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(ValueError, match=f"cannot be resumed with other settings: .*{difference}"):
        resume(tmp_path / "run", **changes)
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_what_changes_no_score_may_change(tmp_path: Path) -> None:
    start(tmp_path / "run", reference={"kind": "none", "settings": {}})
    moved = {"directory": "b", "fingerprint": "sha256:1"}
    more = {"name": "random", "options": {}, "samples": 9}
    resume(tmp_path / "run", workers=7, synthetic=moved, strategy=more)
    assert read_record(tmp_path / "run")["workers"] == 7
    assert read_record(tmp_path / "run")["reference"]["kind"] == "real"


def test_samples_may_not_shrink(tmp_path: Path) -> None:
    start(tmp_path / "run")
    with pytest.raises(ValueError, match="has 8 samples"):
        resume(tmp_path / "run", strategy={"name": "random", "options": {}, "samples": 7})


def test_the_first_difference_is_found_in_depth() -> None:
    assert first_difference("a", {"b": {"c": 1}}, {"b": {"c": 1}}) is None
    assert first_difference("a", {"b": {"c": 1}}, {"b": {"c": 2}}) == "a.b.c was 1 there and is 2 now"


def test_two_searches_cannot_share_a_folder(tmp_path: Path) -> None:
    with (
        open_run(tmp_path / "run", record(), resume=False),
        pytest.raises(ValueError, match="another search is writing to"),
    ):
        resume(tmp_path / "run")
    resume(tmp_path / "run")


def test_wall_seconds_add_up_over_sessions(tmp_path: Path) -> None:
    path = tmp_path / "run"
    for session in range(2):
        with open_run(path, record(), resume=session > 0) as folder, folder.timing("search_wall_seconds"):
            time.sleep(0.1)
            folder.save()
            during = json.loads((path / "run.json").read_text())["search_wall_seconds"]
            assert during >= 0.1 * (session + 1)
    after = read_record(path)
    assert 0.2 <= after["search_wall_seconds"] < 5
    assert after["reference_wall_seconds"] is None


def test_many_trials_a_second_do_not_rewrite_the_record_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    takes = 0.0
    monkeypatch.setattr("atom_nas.run_folder.time.perf_counter", lambda: clock[0])
    writes = []

    def write(path: Path, text: str) -> None:
        clock[0] += takes
        writes.append(clock[0])

    with open_run(tmp_path / "run", record(), resume=False) as folder:
        monkeypatch.setattr("atom_nas.run_folder.write_text", write)
        for _ in range(295):
            clock[0] += 0.01
            folder.save_now_and_then()
        assert len(writes) == 2  # in not quite 3 seconds
        takes = 0.5
        folder.save()
        for _ in range(295):
            clock[0] += 0.1
            folder.save_now_and_then()
        assert len(writes) - 3 == 2  # in not quite 30 seconds


def test_trials_of_an_interrupted_session_are_there(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with open_run(path, record(), resume=False) as folder:
        folder.store.add(trial("a"))
    with open_run(path, record(), resume=True) as folder:
        assert folder.store.trials("proxy") == [trial("a")]


def test_scores_by_an_earlier_measure_are_forgotten_and_no_others(tmp_path: Path) -> None:
    start(tmp_path, estimators={"naswot": {"version": 3}, "snip": {"version": 3}})
    now = {"naswot": {"version": 3, "measure": 2}, "snip": {"version": 3}}
    for expected in (["snip"], ["naswot", "snip"]):  # the second time both are as the record has them
        with TrialStore.open(tmp_path / "trials.sqlite") as store:
            for name in now:
                store.add(replace(trial(), estimator=name))
        with closing(open_run(tmp_path, record(estimators=now), resume=True)) as folder:
            assert [name for name in now if folder.store.trials(name)] == expected

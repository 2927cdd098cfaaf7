"""The trial store: what was added is there, whatever happens to the process or the disk."""

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from trial_helpers import trial

from atom_nas.trials import TrialStore

FAILED = {"status": "failed", "reason": "MemoryError", "scores": {}, "peak_memory_mb": None}


def fill(store: TrialStore) -> None:
    """Add more trials than a page holds."""
    for i in range(300):
        store.add(trial(f"a{i}", position=i))


def test_a_trial_comes_back_to_the_bit(tmp_path: Path) -> None:
    trials = [trial("a"), trial("b", position=1, **FAILED), trial("c", position=2, cached=True)]
    with TrialStore.create(tmp_path / "t.sqlite") as store:
        for each in trials:
            store.add(each)
    with TrialStore.open(tmp_path / "t.sqlite") as store:
        assert store.trials("proxy") == trials
        assert store.get("proxy", "b") == trials[1]
        assert store.get("real", "b") is None


def test_trials_come_in_order_of_proposal(tmp_path: Path) -> None:
    with TrialStore.create(tmp_path / "t.sqlite") as store:
        for position in (2, 0, 1):
            store.add(trial(f"a{position}", position=position))
        assert [each.architecture for each in store.trials("proxy")] == ["a0", "a1", "a2"]


def test_adding_again_is_an_error_unless_identical(tmp_path: Path) -> None:
    with TrialStore.create(tmp_path / "t.sqlite") as store:
        store.add(trial())
        store.add(trial())
        with pytest.raises(ValueError, match=r"already holds another proxy trial of w32-d1"):
            store.add(trial(seconds=9.0))
        store.add(trial(estimator="real", seconds=9.0))
        store.add_if_absent(trial(seconds=9.0))
        assert store.trials("proxy") == [trial()]


def test_a_score_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    with TrialStore.create(tmp_path / "t.sqlite") as store:
        with pytest.raises(ValueError, match="not JSON compliant"):
            store.add(trial(scores={"validation_loss": float("nan")}))
        assert store.trials("proxy") == []


def test_each_trial_outlives_a_kill(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from atom_nas.trials import TrialStore\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r}); from trial_helpers import trial\n"
        f"store = TrialStore.create(Path({str(tmp_path / 't.sqlite')!r}))\n"
        "[store.add(trial(f'a{i}', position=i)) for i in range(5)]\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    with TrialStore.open(tmp_path / "t.sqlite") as store:
        assert store.trials("proxy") == [trial(f"a{i}", position=i) for i in range(5)]


def test_several_writers_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"

    def write(writer: int) -> None:
        with TrialStore.create(path) as store:
            for i in range(10):
                store.add_if_absent(trial(f"a{i}", position=i))
                store.add(trial(f"own{writer}-{i}", position=i))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    with TrialStore.open(path) as store:
        assert len(store.trials("proxy")) == 10 + 80


def test_a_reader_sees_trials_while_the_writer_is_open(tmp_path: Path) -> None:
    with TrialStore.create(tmp_path / "t.sqlite") as store:
        store.add(trial())
        reader = sqlite3.connect(f"file:{tmp_path / 't.sqlite'}?mode=ro", uri=True)
        assert reader.execute("SELECT count(*), max(seed) FROM trials").fetchone() == (1, 2**62 + 1)
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        reader.close()


def test_a_missing_file_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no trial store at"):
        TrialStore.open(tmp_path / "t.sqlite")


def test_text_is_not_a_store(tmp_path: Path) -> None:
    (tmp_path / "t.sqlite").write_text("architecture,score\n" * 100)
    with pytest.raises(ValueError, match=r"t\.sqlite is not a trial store or is damaged"):
        TrialStore.open(tmp_path / "t.sqlite")


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE trials (x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match="another program's SQLite file"):
        TrialStore.create(path)
    assert path.read_bytes() == before


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    TrialStore.create(tmp_path / "t.sqlite").close()
    with sqlite3.connect(tmp_path / "t.sqlite") as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(ValueError, match="newer than 1: update atom-nas"):
        TrialStore.open(tmp_path / "t.sqlite")


def test_damage_inside_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    with TrialStore.create(path) as store:
        fill(store)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"), TrialStore.open(path) as store:
        store.trials("proxy")


def test_a_folder_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"cannot use the trial store .*unable to open database file"):
        TrialStore.create(tmp_path / "absent" / "t.sqlite")


def test_a_full_disk_loses_nothing_stored(tmp_path: Path) -> None:
    with TrialStore.create(tmp_path / "t.sqlite") as store:
        store.add(trial("first"))
        # SQLite's own limit on the size of a file answers as a full disk does.
        store._connection.execute("PRAGMA max_page_count = 1")
        with pytest.raises(OSError, match="full"):
            fill(store)
        assert store.get("proxy", "first") == trial("first")

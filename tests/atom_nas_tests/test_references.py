"""The cache of reference trials: it saves time, and never does harm."""

import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from trial_helpers import trial

from atom_nas.references import ReferenceCache, cache_folder
from atom_nas.search import SearchSettings, run_search
from atom_nas.trials import Trial

CELL = "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|"
KEY = {"dataset": "sha256:0", "estimator": {"epochs": 3}, "seed": 0}


def real(architecture: str, **changes: object) -> Trial:
    return trial(architecture, estimator="real", **changes)


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("ATOM_NAS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "atom-nas"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "atom-nas"


def test_trials_are_found_again_under_the_same_key_only() -> None:
    first = ReferenceCache(KEY)
    first.add(real("a"))
    first.close()
    reordered = dict(reversed(KEY.items()))
    assert ReferenceCache(reordered).get("real", "a") == real("a")
    assert ReferenceCache(KEY).get("real", "b") is None
    assert ReferenceCache({**KEY, "estimator": {"epochs": 4}}).get("real", "a") is None


def test_several_runs_share_a_cache_and_the_first_result_stays() -> None:
    one, two = ReferenceCache(KEY), ReferenceCache(KEY)
    one.add(real("a", seconds=1.0))
    two.add(real("a", seconds=2.0))
    two.add(real("b"))
    assert one.get("real", "a") == real("a", seconds=1.0)
    assert one.get("real", "b") == real("b")


def test_machines_on_one_file_system_may_share_it() -> None:
    """Without a write-ahead log, which takes shared memory; also where an earlier version left one."""
    cache = ReferenceCache(KEY)
    cache.add(real("a"))
    cache.close()
    with closing(sqlite3.connect(cache.path)) as earlier:
        assert earlier.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert earlier.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
        earlier.execute("UPDATE trials SET seconds = 7.0")
        earlier.commit()
    assert ReferenceCache(KEY).get("real", "a") == real("a", seconds=7.0)
    with closing(sqlite3.connect(cache.path)) as later:
        assert later.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_failures_are_not_kept() -> None:
    cache = ReferenceCache(KEY)
    cache.add(real("a", status="failed", reason="MemoryError", scores={}))
    assert cache.get("real", "a") is None


def test_a_damaged_cache_is_a_warning() -> None:
    path = ReferenceCache(KEY).path
    path.write_bytes(b"not a database" * 1000)
    with pytest.warns(UserWarning, match="the reference cache is not used: .*not a trial store"):
        cache = ReferenceCache(KEY)
    cache.add(real("a"))
    assert cache.get("real", "a") is None


def test_a_cache_that_cannot_be_made_is_a_warning(own_cache: Path) -> None:
    own_cache.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="the reference cache is not used"):
        cache = ReferenceCache(KEY)
    assert cache.get("real", "a") is None


def test_a_cache_that_fails_later_is_one_warning() -> None:
    cache = ReferenceCache(KEY)
    assert cache._store is not None
    cache._store._connection.execute("PRAGMA query_only = 1")
    with pytest.warns(UserWarning, match="the reference cache is not used"):
        cache.add(real("a"))
    cache.add(real("b"))
    assert cache.get("real", "b") is None


@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize(
    "changes", [{"seed": 40}, {"space_options": {"cells": 1, "channels": 2}}], ids=["seed", "skeleton"]
)
def test_networks_of_other_seeds_and_skeletons_are_told_apart(
    quick: SearchSettings, tmp_path: Path, changes: dict[str, Any]
) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text(f"architecture\n{CELL}\n")
    cells: dict[str, Any] = {"space": "nasbench201", "space_options": {"cells": 1, "channels": 4}}
    first = replace(quick, architectures=listed, samples=None, epochs=1, **cells)
    run_search(first)
    assert run_search(replace(first, out=tmp_path / "again")).cached == 1
    assert run_search(replace(first, out=tmp_path / "other", **changes)).cached == 0

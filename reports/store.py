"""trials.sqlite, read as if a stranger had written it: nothing in it is run, and what is odd is named."""

from __future__ import annotations

import json
import math
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

from reports.scores import RANKING_COLUMNS

TRIAL_COLUMNS = (
    "architecture",
    "position",
    "status",
    "reason",
    "scores",
    "seconds",
    "cpu_seconds",
    "peak_memory_mb",
    "cached",
    "seed",
    "device",
)
MAX_TRIALS = 1_000_000
"""The most rows that are read: far more than any search has, few enough to fit in memory."""
STEPS_A_CALL = 1_000_000
MAX_CALLS = 500
"""After so many million instructions SQLite is stopped; a million rows take about a hundred million."""
LARGEST = 1e100
"""Numbers up to this size can be multiplied and a million of the products added up without overflow."""


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Every trial as a row of `estimator` and `TRIAL_COLUMNS`, in the order proposed; `scores` is a dict.

    Raises:
        ValueError: if there is no such file, or it is no trial store, or a value in it cannot be; one line
        that names the file and the field.
    """
    if not path.is_file():
        raise ValueError(
            f"{path.parent} has no {path.name}, which holds a run's trials: put it back, or search anew in "
            "another folder"
        )
    try:
        with closing(_connect(path)) as connection:
            _check_table(path, connection)
            rows = [dict(row) for row in connection.execute(_query())]
    except sqlite3.Error as error:
        raise ValueError(f"{path} is not a readable trial store ({_one_line(error)})") from None
    if len(rows) > MAX_TRIALS:
        raise ValueError(f"{path} holds more than {MAX_TRIALS:,} trials, the most that a report reads")
    _check_unique(path, rows)
    return [_checked(path, row) for row in rows]


def _connect(path: Path) -> sqlite3.Connection:
    """A connection that writes nothing, calls no function of the file's schema, and ends after a while."""
    # Opening a store in WAL mode leaves -wal and -shm files behind, even read-only. Without a -wal file
    # nobody has it open, and `immutable` reads it without a trace.
    mode = "mode=ro" if path.with_name(path.name + "-wal").exists() else "immutable=1"
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True)
    connection.row_factory = sqlite3.Row
    calls = count(1)
    connection.set_progress_handler(lambda: next(calls) > MAX_CALLS, STEPS_A_CALL)
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _query() -> str:
    """One row more than is allowed, taken before sorting, so that no file is sorted whole to be refused."""
    columns = ", ".join(("estimator", *TRIAL_COLUMNS))
    return (
        f"SELECT {columns} FROM (SELECT * FROM trials LIMIT {MAX_TRIALS + 1}) ORDER BY position, architecture"
    )


def _check_table(path: Path, connection: sqlite3.Connection) -> None:
    """Refuse a view, a virtual table or computed columns: reading those runs what the file says."""
    query = "SELECT type, rootpage FROM sqlite_master WHERE lower(name) = 'trials'"
    found = connection.execute(query).fetchone()
    if found is None:
        raise ValueError(f"{path} is not a readable trial store (no such table: trials)")
    plain = found["type"] == "table" and found["rootpage"]
    if not plain or any(column["hidden"] for column in connection.execute("PRAGMA table_xinfo(trials)")):
        kind = "a view" if found["type"] == "view" else "computed"
        raise ValueError(f"{path} is not a readable trial store (trials is {kind}, not a plain table)")


def _check_unique(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    keys = Counter((row["estimator"], row["architecture"]) for row in rows)
    for (estimator, architecture), number in keys.items():
        if number > 1:
            raise ValueError(
                f"{path} is damaged: it holds {number} {estimator} trials of {_shown(architecture)}"
            )


def _checked(path: Path, row: dict[str, Any]) -> dict[str, Any]:
    """The row with its scores parsed, once every field that a report reads has the type it must have."""
    for field in ("architecture", "status", "device"):
        if not isinstance(row[field], str):
            raise _damaged(path, row, field, "text")
    if not isinstance(row["reason"], (str, type(None))):
        raise _damaged(path, row, "reason", "text")
    for field in ("seconds", "cpu_seconds", "peak_memory_mb"):
        unknown = field == "peak_memory_mb" and row[field] is None
        if not unknown and not (_is_number(row[field]) and row[field] >= 0):
            raise _damaged(path, row, field, "a finite number of at least 0")
    return row | {"scores": _parse_scores(path, row)}


def _parse_scores(path: Path, row: Mapping[str, Any]) -> dict[str, float]:
    try:
        scores = json.loads(row["scores"])
    except (TypeError, ValueError, RecursionError):
        scores = None
    if not isinstance(scores, dict) or not all(map(_is_number, scores.values())):
        problem = f"the scores of {_shown(row['architecture'])} are not a JSON object of finite numbers"
        raise ValueError(f"{path} is damaged: {problem}")
    for name in scores:
        if name in RANKING_COLUMNS:
            raise ValueError(
                f"{path} has a score named {name!r}, which is a column of ranking.csv: give it another name"
            )
    return {name: float(value) for name, value in scores.items()}


def _is_number(value: object) -> bool:
    """Whether it is a number that arithmetic can bear; comparing an integer of any length is exact."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return (isinstance(value, int) or math.isfinite(value)) and abs(value) <= LARGEST


def _damaged(path: Path, row: Mapping[str, Any], field: str, allowed: str) -> ValueError:
    trial = f"the {row['estimator']} trial of {_shown(row['architecture'])}"
    return ValueError(
        f"{path} is damaged: {field} of {trial} is {_shown(row[field])}, it must be {allowed}; "
        "restore the file or run the search again"
    )


def _shown(value: object) -> str:
    """The value in quotes, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

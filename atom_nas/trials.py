"""The trial store: one SQLite file that holds the truth about a run.

Each finished trial is one durable transaction, so a process killed at any moment loses at most the trials
that were still running. Readers may open the file while a search writes to it, on the same machine.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from reports.scores import describe_score

APPLICATION_ID = 0x41544F4D  # "ATOM": tells our files from other programs' SQLite files
FORMAT_VERSION = 1
BUSY_SECONDS = 60.0

_TABLE = """
CREATE TABLE trials (
  estimator TEXT NOT NULL,
  architecture TEXT NOT NULL,
  position INTEGER NOT NULL,
  status TEXT NOT NULL,
  reason TEXT,
  scores TEXT NOT NULL,
  seconds REAL NOT NULL,
  cpu_seconds REAL NOT NULL,
  peak_memory_mb REAL,
  cached INTEGER NOT NULL DEFAULT 0,
  seed INTEGER NOT NULL,
  device TEXT NOT NULL,
  PRIMARY KEY (estimator, architecture))
"""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One architecture scored, or failed, by one estimator: a row of the store.

    Attributes:
        estimator: "proxy", "real", ...: see `Stage.name`.
        architecture: the space's string form.
        position: 0-based order of proposal.
        status: "done" or "failed".
        reason: why it failed, one line; None if it is done.
        scores: name -> finite number; empty if it failed.
        seconds: wall seconds of the trial.
        cpu_seconds: CPU seconds of the trial, over all its threads.
        peak_memory_mb: MiB at the peak, above what the worker held before; None: unknown.
        cached: taken from the reference cache; the seconds are those measured originally.
        seed: the trial's derived seed.
        device: "cpu", "cuda", ...
    """

    estimator: str
    architecture: str
    position: int
    status: str
    reason: str | None
    scores: Mapping[str, float]
    seconds: float
    cpu_seconds: float
    peak_memory_mb: float | None
    cached: bool
    seed: int
    device: str

    def worth(self, score: str) -> float | None:
        """The score turned so that higher is better; None if the trial failed."""
        return describe_score(score).sign * self.scores[score] if self.done else None

    @property
    def done(self) -> bool:
        """Whether the trial has scores."""
        return self.status == "done"


_COLUMNS = tuple(field.name for field in fields(Trial))
_INSERT = f"INTO trials ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM trials"


class TrialStore:
    """Trials in one SQLite file; only one process of a run writes, any number may read."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Wrap an open connection; use `create` or `open`."""
        self.path = path
        self._connection = connection

    @classmethod
    def create(cls, path: Path, *, shared: bool = False) -> "TrialStore":
        """Open `path`, made if it is absent.

        Args:
            shared: other machines may write to it as well, over a network; a little slower. A write-ahead log
                needs memory that all who open the file share.
        Raises:
            ValueError: the file is there and is not a trial store, or is damaged.
            OSError: the file cannot be made or written (missing folder, read-only, full disk).
        """
        with _clear_errors(path):
            connection = _connect(path)
            try:
                _prepare(connection, path, journal="DELETE" if shared else "WAL")
            except BaseException:
                connection.close()
                raise
        return cls(path, connection)

    @classmethod
    def open(cls, path: Path) -> "TrialStore":
        """Open a store that exists.

        Raises:
            ValueError: there is no such file, it is not a trial store, or it is damaged.
            OSError: the file cannot be read.
        """
        if not path.is_file():
            raise ValueError(f"no trial store at {path}: give the folder of an earlier search")
        return cls.create(path)

    def add(self, trial: Trial) -> None:
        """Store one finished trial durably; storing an identical one again changes nothing.

        Raises:
            ValueError: this estimator and architecture are stored already, with another result.
            OSError: the disk is full or read-only; nothing was written.
        """
        if self._insert("INSERT", trial):
            return
        if self.get(trial.estimator, trial.architecture) != trial:
            raise ValueError(
                f"{self.path} already holds another {trial.estimator} trial of {trial.architecture}: "
                "is a second search writing to this folder?"
            )

    def add_if_absent(self, trial: Trial) -> None:
        """Store one finished trial unless this estimator and architecture are stored already."""
        self._insert("INSERT OR IGNORE", trial)

    def replace(self, trial: Trial) -> None:
        """Store a trial in the place of the one that this estimator and architecture have."""
        self._insert("INSERT OR REPLACE", trial)

    def discard(self, estimator: str, architecture: str) -> None:
        """Forget the trial of this estimator and architecture, if there is one."""
        query = "DELETE FROM trials WHERE estimator = ? AND architecture = ?"
        self._run(lambda: self._connection.execute(query, (estimator, architecture)))

    def discard_all(self, estimator: str) -> None:
        """Forget all trials of this estimator."""
        self._run(lambda: self._connection.execute("DELETE FROM trials WHERE estimator = ?", (estimator,)))

    def get(self, estimator: str, architecture: str) -> Trial | None:
        """The stored trial of this estimator and architecture, or None."""
        query = f"{_SELECT} WHERE estimator = ? AND architecture = ?"
        rows = self._run(lambda: self._connection.execute(query, (estimator, architecture)).fetchall())
        return _trial(rows[0], self.path) if rows else None

    def trials(self, estimator: str) -> list[Trial]:
        """All trials of an estimator, in the order of proposal."""
        query = f"{_SELECT} WHERE estimator = ? ORDER BY position, architecture"
        rows = self._run(lambda: self._connection.execute(query, (estimator,)).fetchall())
        return [_trial(row, self.path) for row in rows]

    def estimators(self) -> list[str]:
        """Whose trials there are."""
        rows = self._run(lambda: self._connection.execute("SELECT DISTINCT estimator FROM trials").fetchall())
        return [str(name) for (name,) in rows]

    def close(self) -> None:
        """Close the file; the store cannot be used afterwards."""
        self._connection.close()

    def __enter__(self) -> "TrialStore":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _insert(self, verb: str, trial: Trial) -> bool:
        """Insert a row in a transaction of its own; False if its key is taken."""
        row = _row(trial)
        try:
            self._run(lambda: self._connection.execute(f"{verb} {_INSERT}", row))
        except sqlite3.IntegrityError:
            return False
        return True

    def _run(self, action: Callable[[], Result]) -> Result:
        with _clear_errors(self.path):
            return action()


def _connect(path: Path) -> sqlite3.Connection:
    # Autocommit: each statement is its own transaction. NNI may call the evaluation from another thread
    # than the one that opened the store (never from two at once), hence check_same_thread=False.
    return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _prepare(connection: sqlite3.Connection, path: Path, *, journal: str) -> None:
    """Refuse a foreign file; make the table in an empty one, in one transaction."""
    # FULL: the journal is flushed at each commit, so a stored trial outlives a power cut, not only a kill.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    if _is_new(connection, path):
        connection.execute(_TABLE)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
    connection.execute("COMMIT")
    _use(journal, connection)


def _is_new(connection: sqlite3.Connection, path: Path) -> bool:
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if not tables and not application:
        return True
    if application != APPLICATION_ID or "trials" not in tables:
        raise ValueError(f"{path} is another program's SQLite file, not a trial store: choose another folder")
    if version > FORMAT_VERSION:
        raise ValueError(f"{path} has trial format {version}, newer than {FORMAT_VERSION}: update atom-nas")
    return False


def _use(journal: str, connection: sqlite3.Connection) -> None:
    """Switch to a kind of journal, patiently: SQLite does not wait by itself when two processes switch."""
    deadline = time.monotonic() + BUSY_SECONDS
    while not _switched(journal, connection, final=time.monotonic() > deadline):
        time.sleep(0.02)


def _switched(journal: str, connection: sqlite3.Connection, *, final: bool) -> bool:
    try:
        connection.execute(f"PRAGMA journal_mode = {journal}")
    except sqlite3.OperationalError as error:
        if "locked" in str(error) and not final:
            return False
        raise
    return True


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into one clear line; a taken key (IntegrityError) is the caller's matter."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.OperationalError as error:
        raise OSError(
            f"cannot use the trial store {path}: {error} (is the disk full or read-only?)"
        ) from error
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{path} is not a trial store or is damaged: {error}") from error


def _row(trial: Trial) -> list[Any]:
    values = {name: getattr(trial, name) for name in _COLUMNS}
    scores = json.dumps(dict(sorted(trial.scores.items())), allow_nan=False)
    return [*(values | {"scores": scores, "cached": int(trial.cached)}).values()]


def _trial(row: tuple[Any, ...], path: Path) -> Trial:
    values = dict(zip(_COLUMNS, row, strict=True))
    try:
        scores = json.loads(values["scores"])
    except ValueError as error:
        raise ValueError(f"{path} is damaged: the scores of {values['architecture']} are not JSON") from error
    return Trial(**(values | {"scores": scores, "cached": bool(values["cached"])}))

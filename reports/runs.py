"""A run folder as one validated value: run.json, trials.sqlite, reference.csv; only read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.confirmed import ESTIMATOR
from reports.rungs import ranked_so_far
from reports.schema import RunInfo, one_line, read_info
from reports.scores import COUNTED, HALVING, RANKING_COLUMNS, mean_of, score_of
from reports.store import LARGEST, TRIAL_COLUMNS, read_rows

if TYPE_CHECKING:
    import pandas as pd

    from reports.combinations import Combination


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder that was read whole.

    Attributes:
        folder: where it is.
        info: run.json.
        trials: the proxy's trials in the order proposed; columns architecture, position, status, reason,
            seconds, cpu_seconds, peak_memory_mb, cached, seed, device and `score:NAME` for every score (NaN
            where missing); for another estimator NAME also `seconds:NAME` and `cpu_seconds:NAME`, its own,
            and `score:NAME`, or `score:NAME:OTHER` for scores of other names.
        reference: the reference's, with the same columns; those of a table hold architecture, status, an
            empty reason and its score.
        confirmed: those of the trainings whose weights are kept, likewise.
        combinations: scores among `trials` that were not recorded but made of others.
    """

    folder: Path
    info: RunInfo
    trials: pd.DataFrame
    reference: pd.DataFrame
    confirmed: pd.DataFrame
    combinations: tuple[Combination, ...] = ()

    @property
    def name(self) -> str:
        """The folder's own name, by which pages call the run."""
        return self.folder.resolve().name

    @property
    def networks(self) -> pd.Series:
        """Of every proxy trial, the first architecture that is the same network: mostly itself."""
        return self.trials["architecture"].map(lambda name: self.info.same.get(name, name))

    @property
    def reference_score(self) -> str:
        """The score by which the reference ranks."""
        return self.info.reference.score or (
            "test_accuracy" if self.info.reference.kind == "real" else "score"
        )

    @property
    def score_names(self) -> list[str]:
        """Every score some proxy trial recorded, in the order first seen, and combinations."""
        return [name for name in self._recorded if name == mean_of(name)]

    def repeats_of(self, score: str) -> pd.DataFrame:
        """A row a proxy trial, a column each of its trainings' own score; none where each trained once."""
        own = [name for name in self._recorded if mean_of(name) == score != name]
        return self.trials[[f"score:{name}" for name in own]]

    @property
    def _recorded(self) -> list[str]:
        return [column.removeprefix("score:") for column in self.trials if str(column).startswith("score:")]


def read_run(folder: Path | str) -> Run:
    """Reads a run folder, also of a search that is still going or was killed.

    Raises:
        ValueError: if it is missing, not a run folder, of an unknown format, or damaged; the line names the
        file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"no run folder at {folder}: give the folder that `atom-nas search --out` wrote")
    info = read_info(folder / "run.json")
    rows = read_rows(folder / "trials.sqlite")
    if info.score == HALVING and not info.complete:
        criterion, combined = info.strategy.criterion or "", info.strategy.combined
        rows += ranked_so_far(rows, criterion, combined, same_as=lambda name: info.same.get(name, name))
    trials = _frame([row for row in rows if row["estimator"] == "proxy"])
    for name in info.estimators:
        if name in RANKING_COLUMNS:
            raise ValueError(
                f"{folder / 'run.json'} has an estimator named {name!r}, a column of ranking.csv"
            )
        _add_ruler(trials, name, [row for row in rows if row["estimator"] == name])
    if info.reference.kind == "table":
        table, score = folder / "reference.csv", info.reference.score or "score"
        begun = not info.complete and not table.exists()  # it is written once all are scored
        reference = _scored((), (), score) if begun else _read_table(table, score)
    else:
        reference = _frame(
            [row for row in rows if row["estimator"] == "real" and info.reference.kind == "real"]
        )
    confirmed = _frame([row for row in rows if row["estimator"] == ESTIMATOR])
    return Run(folder=folder, info=info, trials=trials, reference=reference, confirmed=confirmed)


def _frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    columns = [column for column in TRIAL_COLUMNS if column != "scores"]
    flat = [
        {**{c: row[c] for c in columns}, **{f"score:{name}": v for name, v in row["scores"].items()}}
        for row in rows
    ]
    names = list(dict.fromkeys(name for row in flat for name in row if name.startswith("score:")))
    frame = pd.DataFrame(flat, columns=[*columns, *names])
    numeric = ["seconds", "cpu_seconds", "peak_memory_mb", *names]
    frame[numeric] = frame[numeric].astype("float64")
    return frame


def _add_ruler(trials: pd.DataFrame, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Another estimator's scores, and what it took, beside the proxy's; what is counted is the same."""
    listed = list(rows)
    for column in ("seconds", "cpu_seconds"):
        spent = {row["architecture"]: row[column] for row in listed}
        trials[f"{column}:{name}"] = trials["architecture"].map(spent).astype("float64")
    done = {row["architecture"]: row["scores"] for row in listed if row["status"] == "done"}
    recorded = dict.fromkeys(score for scores in done.values() for score in scores if score not in COUNTED)
    for score in recorded or (name,):
        values = {architecture: scores.get(score) for architecture, scores in done.items()}
        column = f"score:{score_of(name, score)}"
        trials[column] = trials["architecture"].map(values).astype("float64")


def _read_table(path: Path, score: str) -> pd.DataFrame:
    import pandas as pd

    if not path.is_file():
        raise ValueError(
            f"{path.parent} has no {path.name}, but its reference is a table: run the search again"
        )
    try:
        table = pd.read_csv(path, dtype=str)  # versions of pandas differ in what they take for a number
        names, values = table["architecture"], table["score"].map(float).astype("float64")
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path} needs columns architecture, score with numbers ({one_line(error)})"
        ) from None
    if names.duplicated().any():
        raise ValueError(
            f"{path} scores {names[names.duplicated()].iloc[0]!r} more than once: keep one line of it"
        )
    if (values.abs() > LARGEST).any():
        name = names[values.abs() > LARGEST].iloc[0]
        raise ValueError(f"{path}: score of {name!r} must be a finite number, at most {LARGEST:g} in size")
    return _scored(names, values, score)


def _scored(names: Iterable[str], values: Iterable[float], score: str) -> pd.DataFrame:
    """Reference scores in the columns that trials have."""
    import pandas as pd

    table = pd.DataFrame({"architecture": names, "status": "done", "reason": None, f"score:{score}": values})
    return table.astype({f"score:{score}": "float64"})

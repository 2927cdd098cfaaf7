"""The run folder as one validated value: run.json, trials.sqlite, reference.csv; only read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from reports.confirmed import ESTIMATOR
from reports.rungs import ranked_so_far
from reports.scores import COUNTED, HALVING, RANKING_COLUMNS, mean_of, score_of
from reports.store import LARGEST, TRIAL_COLUMNS, read_rows
from reports.weights import weights_of

if TYPE_CHECKING:
    import pandas as pd

    from reports.combinations import Combination

FORMAT_VERSION = 1
Count = Annotated[int, Field(ge=0)]
Images = Annotated[int, Field(ge=0, le=10**15)]
"""A number of images, small enough for floating-point arithmetic; spaces may be larger."""
Seconds = Annotated[float, Field(ge=0, le=LARGEST)]
Limit = Annotated[float, Field(ge=1, le=LARGEST)]
Rate = Annotated[float, Field(ge=0, le=LARGEST)]


def _weighted(parts: tuple[str, ...]) -> tuple[str, ...]:
    weights_of(parts)
    return parts


class _Part(BaseModel):
    """A part of run.json: what is named is checked, what is not named is kept."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class DatasetInfo(_Part):
    """The real dataset: name, content hash, number of classes, (C, H, W); `largest_class` is the share of the
    largest class among the images of each split that are scored on, where classes are not of one size."""

    name: str
    fingerprint: str = ""
    classes: Count | None = None
    image_shape: tuple[int, ...] = ()
    largest_class: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}


class SyntheticInfo(_Part):
    """The synthetic set and what it cost, in seconds on `device`.

    `images` are stored ones, `ipc` of each class; each holds factor x factor smaller ones. `soft_labels` says
    of how many teachers they are; None: labels are hard. `unwhitened`: of a whitened set, whether
    it was trained on as it was before whitening; None: it is not whitened, or that is not known.
    """

    directory: str = ""
    method: str
    ipc: Count | None = None
    images: Count | None = None
    factor: Count = 1
    soft_labels: Count | None = None
    unwhitened: bool | None = None
    iterations: Count | None = None
    distill_seconds: Seconds | None = None
    distill_cpu_seconds: Seconds | None = None
    device: str = ""


class SpaceInfo(_Part):
    """The search space: all its architectures, and how many fit the images, None where they are too many.

    `digest` tells model spaces of one name apart by their choices, `code` those of a user's own also by their
    files; `earlier_code` is that of trials from before a run was resumed, if it was another. `limits`: the
    most that a network might have, by what is counted.
    """

    name: str
    options: dict[str, Any] = {}
    digest: str | None = None
    code: str | None = None
    earlier_code: list[str] = []
    size: Count | None = None
    fitting: Count | None = None
    limits: dict[Literal["parameters", "flops"], Limit] = {}


_MOST_BYTES = 64 * 2**20  # of a record
_OF_A_LIST = ("fingerprint", "duplicates", "among", "halving")


class StrategyInfo(_Part):
    """Who proposed the architectures, and how many were asked for."""

    name: str
    options: dict[str, Any] = {}
    samples: Count | None = None

    @property
    def halving(self) -> str | None:
        """The strategy by which trainings are stopped early; None where they are not."""
        if "rungs" not in self.options:
            return None
        return str(self.options.get("halving", "successive-halving")) if self.name == "list" else self.name

    @property
    def criterion(self) -> str | None:
        """The score by which architectures go on, where trainings are stopped early."""
        named = (self.model_extra or {}).get("criterion")
        return named if isinstance(named, str) else None

    @property
    def how(self) -> dict[str, Any]:
        """The options and whatever else is recorded, less what tells the list of a confined search."""
        said = {**self.options, **(self.model_extra or {})}
        return {name: value for name, value in said.items() if name not in _OF_A_LIST}


class TrainingInfo(_Part):
    """How a trial trains, as far as a report says it."""

    epochs: Count | None = None
    batch_size: Count | None = None
    learning_rate: Rate | None = None
    schedule: str | None = None
    augmentation: str | None = None
    precision: str | None = None


class EstimatorInfo(_Part):
    """What an estimator was set to, as far as a report says it."""

    training: TrainingInfo | None = None
    repeats: Count = 1
    space_options: dict[str, Any] = {}
    training_images: Images | None = None
    validation_images: Images | None = None
    test_images: Images | None = None
    images: Literal["real", "synthetic"] | None = None
    batch_size: Count | None = None


class ReferenceInfo(_Part):
    """Where the reference ranking comes from: trained here, a published table, or nowhere."""

    kind: Literal["real", "table", "none"] = "none"
    score: str | None = None
    settings: EstimatorInfo | None = None
    table: str | None = None
    column: str | None = None
    foreign: Count = 0
    samples: Count | None = None
    matched: Count | None = None


class ConfirmInfo(_Part):
    """How many of the best were to be trained on the real images, and how."""

    count: Count | None = None
    settings: EstimatorInfo = EstimatorInfo()


class RunInfo(_Part):
    """run.json.

    Attributes:
        combine: the scores of which the run's mean of ranks is made, NAME or NAME=WEIGHT; none: the report's
            choice.
        same: architectures that are the same network as an earlier one, and the first of those.
    """

    format_version: Literal[1]
    atom_nas_version: str = ""
    command: str = ""
    seed: int | None = None
    dataset: DatasetInfo
    synthetic: SyntheticInfo
    space: SpaceInfo
    strategy: StrategyInfo
    score: str
    proxy: EstimatorInfo = EstimatorInfo()
    estimators: dict[str, EstimatorInfo] = {}
    reference: ReferenceInfo = ReferenceInfo()
    confirm: ConfirmInfo | None = None
    workers: Count | None = None
    device: str = ""
    search_wall_seconds: Seconds | None = None
    reference_wall_seconds: Seconds | None = None
    confirm_wall_seconds: Seconds | None = None
    combine: Annotated[tuple[str, ...], AfterValidator(_weighted)] = ()
    same: dict[str, str] = {}
    complete: bool = False
    environment: dict[str, Any] = {}


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
    info = _read_info(folder / "run.json")
    rows = read_rows(folder / "trials.sqlite")
    if info.score == HALVING and not info.complete:
        rows += ranked_so_far(rows, info.strategy.criterion or "")
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


def _read_info(path: Path) -> RunInfo:
    if not path.is_file():
        raise ValueError(
            f"{path.parent} is not a run folder: it has no {path.name}, which search writes to its --out"
        )
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        # Half of a surrogate pair could not be written again.
        json.dumps(content, ensure_ascii=False).encode()
        field = _overflowing(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not valid JSON ({_one_line(error)}): restore it or run the search again"
        ) from None
    if not isinstance(content, dict) or "format_version" not in content:
        raise ValueError(f"{path} was not written by atom-nas search: it has no format_version")
    if content["format_version"] != FORMAT_VERSION:
        version = content["format_version"]
        raise ValueError(
            f"{path} has format_version {version!r}, this version reads {FORMAT_VERSION}: update atom-nas"
        )
    if field is not None:
        raise ValueError(f"{path} is not a valid run description: {field}: it must be a finite number")
    try:
        return RunInfo.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{path} is not a valid run description: {_first_problem(error)}") from None


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
            f"{path} needs columns architecture, score with numbers ({_one_line(error)})"
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


def _overflowing(value: Any, field: str = "") -> str | None:
    """The path of the first number that is not finite, anywhere in run.json, or None."""
    if isinstance(value, float):
        return None if math.isfinite(value) else field
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = (_overflowing(part, f"{field}.{name}" if field else str(name)) for name, part in parts)
    return next((path for path in found if path is not None), None)


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

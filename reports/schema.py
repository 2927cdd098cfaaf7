"""run.json as a validated value; only read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from reports.store import LARGEST
from reports.weights import weights_of

FORMAT_VERSION = 1
Count = Annotated[int, Field(ge=0)]
Images = Annotated[int, Field(ge=0, le=10**15)]
"""A number of images, small enough for floating-point arithmetic; spaces may be larger."""
Seconds = Annotated[float, Field(ge=0, le=LARGEST)]
Limit = Annotated[float, Field(ge=1, le=LARGEST)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, le=LARGEST)]


def _weighted(parts: tuple[str, ...]) -> tuple[str, ...]:
    weights_of(parts)
    return parts


class _Part(BaseModel):
    """A part of run.json: what is named is checked, what is not named is kept."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class DatasetInfo(_Part):
    """The real dataset: name, content hash, number and names of the classes, (C, H, W).

    `largest_class`, `smallest_class`: their shares of the images of each split that are scored on.
    `balanced_images`: accuracies are balanced, of each split on as many images as `reports.chance.telling`
    has it.
    """

    name: str
    fingerprint: str = ""
    classes: Count | None = None
    image_shape: tuple[int, ...] = ()
    class_names: tuple[str, ...] = ()
    largest_class: dict[str, Share] = {}
    smallest_class: dict[str, Share] = {}
    balanced_images: dict[str, Annotated[float, Field(gt=0)]] = {}


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
    """Who proposed the architectures, and how many were asked for.

    `combined`: the scores of which the criterion is a mean of ranks, by which architectures go on where
    trainings are stopped early.
    """

    name: str
    options: dict[str, Any] = {}
    samples: Count | None = None
    combined: Annotated[tuple[str, ...], AfterValidator(_weighted)] = ()

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
        if self.combined:
            said["criterion"] = f"{self.criterion} of {', '.join(self.combined)}"
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
    beside_wall_seconds: Seconds | None = None
    combine: Annotated[tuple[str, ...], AfterValidator(_weighted)] = ()
    same: dict[str, str] = {}
    complete: bool = False
    environment: dict[str, Any] = {}


def read_info(path: Path) -> RunInfo:
    """Reads a run.json.

    Raises:
        ValueError: if it is missing, of an unknown format, or damaged; the line names it.
    """
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
            f"{path} is not valid JSON ({one_line(error)}): restore it or run the search again"
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


def one_line(error: Exception) -> str:
    """An error's message without its line breaks."""
    return " ".join(str(error).split())

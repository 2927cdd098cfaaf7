"""The card of a synthetic set, `card.json`, and of a shard, `shard.json`: what it must hold, how it is read.

A card may come from a stranger: whatever passes here must not surprise later.
"""

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from distill.checkpoint import CHECKPOINT
from distill.files import read_regular
from distill.formation import require_factor
from distill.validation import first_problem

FORMAT_VERSION, WITH_FACTOR = 3, 2
"""Of a set with soft labels, and of one whose stored images hold several; others have format 1, which all
versions read."""
CARD, SHARD = "card.json", "shard.json"
_LARGEST = 64 * 2**20
_SEARCH_RECORD = "run.json"

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Side = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=1, le=10**15)]


class _Loose(BaseModel):
    model_config = ConfigDict(extra="allow")


class DatasetCard(_Loose):
    """The real dataset that was distilled."""

    name: str
    fingerprint: str
    classes: list[str] = Field(min_length=2)
    image_shape: tuple[int, Side, Side]
    image_size: Side | None
    train_images: Count
    test_images: Count
    validation_fraction: float = Field(ge=0, lt=1, allow_inf_nan=False)
    validation_seed: int = Field(ge=0)

    @field_validator("image_shape")
    @classmethod
    def _grey_or_colour(cls, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        if shape[0] not in (1, 3):
            raise ValueError(f"images have 1 or 3 channels, not {shape[0]}")
        return shape


class PreprocessingCard(_Loose):
    """Normalisation per channel, and where the whitening is, if there is one."""

    mean: list[float]
    std: list[float]
    zca: dict[str, Any] | None


class SoftLabelsCard(_Loose):
    """Whose predictions the soft labels are, see `distill.labelling`; the seconds are among the card's."""

    teachers: Count
    wall_seconds: Amount
    cpu_seconds: Amount


class Card(_Loose):
    """What `card.json` must hold; more is allowed and kept.

    `ipc` and `images` count stored images; each holds factor x factor smaller ones (see `distill.formation`).
    """

    format_version: int
    dataset: DatasetCard
    preprocessing: PreprocessingCard
    method: str
    ipc: Count
    factor: Count = 1
    seed: int = Field(ge=0)
    device: str
    config: dict[str, Any]
    wall_seconds: Amount
    cpu_seconds: Amount
    images_sha256: str
    soft_labels: SoftLabelsCard | None = None

    file: ClassVar[str] = CARD
    what: ClassVar[str] = "synthetic set"

    @property
    def class_numbers(self) -> tuple[int, ...]:
        """The classes that there are images of."""
        return tuple(range(len(self.dataset.classes)))

    @model_validator(mode="after")
    def _divisible(self) -> "Card":
        require_factor(self.factor, *self.dataset.image_shape[1:])
        return self

    @field_validator("config")
    @classmethod
    def _countable_iterations(cls, config: dict[str, Any]) -> dict[str, Any]:
        iterations = config.get("iterations", 1)
        if type(iterations) is not int or iterations < 1:
            raise ValueError(f"iterations is a whole number of at least 1, not {iterations!r}")
        return config


class Part(_Loose):
    """Which part of a distillation a shard is, and the numbers of its classes."""

    index: Count
    count: Count
    classes: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)


class ShardCard(Card):
    """What `shard.json` must hold: what a card does, and what merging needs."""

    shard: Part
    peak_memory_mb: Amount | None = None
    loss_curve: list[dict[str, int | Finite]] = []
    environment: dict[str, Any] = {}

    file: ClassVar[str] = SHARD
    what: ClassVar[str] = "shard"

    @property
    def class_numbers(self) -> tuple[int, ...]:
        return tuple(self.shard.classes)

    @model_validator(mode="after")
    def _consistent(self) -> "ShardCard":
        numbers = self.shard.classes
        if sorted(set(numbers)) != numbers or numbers[-1] >= len(self.dataset.classes):
            raise ValueError("the classes of a shard are numbers of classes, each once, in order")
        if self.shard.index > self.shard.count:
            raise ValueError(f"there is no shard {self.shard.index} of {self.shard.count}")
        return self


AnyCard = TypeVar("AnyCard", bound=Card)


def read_card(folder: Path) -> Card:
    """The card in `folder`.

    Raises:
        ValueError: naming the file and the first thing that is wrong with it; or, where there is none, saying
            what the folder holds instead.
    """
    return _read(folder, Card)


def read_shard_card(folder: Path) -> ShardCard:
    """The card of the shard in `folder`; raises as `read_card` does."""
    return _read(folder, ShardCard)


def _read(folder: Path, kind: type[AnyCard]) -> AnyCard:
    path = folder / kind.file
    if not path.is_file():
        raise ValueError(f"{folder} holds no {kind.what} (no {kind.file} there){_instead(folder)}")
    try:
        raw = json.loads(read_regular(path, _LARGEST).decode())
        json.dumps(raw, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError(f"{path} holds text that is not Unicode: half of a surrogate pair") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error})") from None
    _refuse_newer(path, raw)
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise ValueError(f"{path} is not a card of a {kind.what} ({first_problem(error)})") from None


def _instead(folder: Path) -> str:
    """What a folder without a card is, if it is one of ours."""
    if folder.is_file():
        return f"; it is a file: name its folder, {folder.parent}"
    if (folder / CARD).is_file():
        return "; it is a whole synthetic set, which needs no merging"
    if (folder / SHARD).is_file():
        return f"; it is {_shard_name(folder)}: merge all of them with 'atom-nas merge'"
    if (folder / _SEARCH_RECORD).is_file():
        return "; it is the run of a search: name the set that was searched with"
    if (folder / CHECKPOINT).is_file():
        return "; its distillation has not finished: go on with --resume (atom-nas distill ... --resume)"
    return ": name a folder that 'atom-nas distill --out' wrote"


def _shard_name(folder: Path) -> str:
    try:
        part = read_shard_card(folder).shard
    except (ValueError, OSError):
        return "a shard"
    return f"shard {part.index} of {part.count}"


def _refuse_newer(path: Path, raw: object) -> None:
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ValueError(f"{path} has format {version}; this version reads up to {FORMAT_VERSION}: upgrade")

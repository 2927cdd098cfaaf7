"""The card of a synthetic set, `card.json`: what it must hold, and how it is read.

A card may come from a stranger: whatever passes here must not surprise later.
"""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from distill.session import CHECKPOINT

FORMAT_VERSION = 1
CARD = "card.json"
_SEARCH_RECORD = "run.json"

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Side = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=1)]


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


class Card(_Loose):
    """What `card.json` must hold; more is allowed and kept."""

    format_version: int
    dataset: DatasetCard
    preprocessing: PreprocessingCard
    method: str
    ipc: Count
    seed: int = Field(ge=0)
    device: str
    config: dict[str, Any]
    wall_seconds: Seconds
    cpu_seconds: Seconds
    images_sha256: str

    @field_validator("config")
    @classmethod
    def _countable_iterations(cls, config: dict[str, Any]) -> dict[str, Any]:
        iterations = config.get("iterations", 1)
        if type(iterations) is not int or iterations < 1:
            raise ValueError(f"iterations is a whole number of at least 1, not {iterations!r}")
        return config


def read_card(folder: Path) -> Card:
    """The card in `folder`.

    Raises:
        ValueError: naming the file and the first thing that is wrong with it; or, where there is none, saying
            what the folder holds instead.
    """
    path = folder / CARD
    if not path.is_file():
        raise ValueError(f"{folder} holds no synthetic set (no {CARD} there){_instead(folder)}")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(raw, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError(f"{path} holds text that is not Unicode: half of a surrogate pair") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error})") from None
    _refuse_newer(path, raw)
    try:
        return Card.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        reason = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{path} is not a card of a synthetic set ({where}: {reason})") from None


def _instead(folder: Path) -> str:
    """What a folder without a card is, if it is one of ours."""
    if (folder / _SEARCH_RECORD).is_file():
        return "; it is the run of a search: name the set that was searched with"
    if (folder / CHECKPOINT).is_file():
        return "; its distillation has not finished: go on with --resume (atom-nas distill ... --resume)"
    return ""


def _refuse_newer(path: Path, raw: object) -> None:
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ValueError(f"{path} has format {version}; this version reads up to {FORMAT_VERSION}: upgrade")

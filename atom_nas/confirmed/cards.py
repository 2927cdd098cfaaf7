"""The cards of confirmed networks: what they must hold, how they are read.

A folder of them may come from a stranger: whatever passes here must not surprise later.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atom_nas.names import harmless
from distill.card import PreprocessingCard, Side
from distill.files import printable, read_regular
from distill.validation import first_problem
from reports.confirmed import merit, stem

FORMAT_VERSION = 1
LARGEST_CARD = 16 * 2**20
Fraction = Annotated[float, Field(ge=0, le=1)]
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class _Loose(BaseModel):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)


class SpaceCard(_Loose):
    """The search space, as `search_spaces.load` takes it; a user's own has no path in its name.

    Of a model space there is also the `digest` of its choices, and of a user's own the `file` it came from,
    the digest of its `code`, and where that is of several files those of its `sources`.
    """

    name: str
    options: dict[str, Any]

    def known(self, entry: str) -> Any:
        """An entry that only some spaces have."""
        return (self.model_extra or {}).get(entry)


class TrainedCard(_Loose):
    """What a card must hold; more is allowed and kept."""

    format_version: int
    architecture: str
    position: int
    space: SpaceCard
    image_shape: tuple[Side, Side, Side]
    classes: list[str] = Field(min_length=2)
    preprocessing: PreprocessingCard
    weights_sha256: str
    validation_accuracy: Fraction
    validation_loss: float
    test_accuracy: Fraction
    grey_bits: Literal[8, 12, 16] = 8


def weights_of(card: Path) -> Path:
    """The file beside a card that holds the weights."""
    return card.with_suffix(".safetensors")


def read_cards(folder: Path) -> list[tuple[Path, TrainedCard]]:
    """All cards of a folder with their files, those that come first in rank first.

    JSON that is no card and has no weights beside it is somebody else's, and passed over.

    Raises:
        ValueError: a card is damaged, of a newer format, or was renamed; one line.
        OSError: a file cannot be read.
    """
    found = [(path, _card_or_none(path)) for path in sorted(folder.glob("*.json"))]
    cards = [(path, card) for path, card in found if card]

    def by_merit(entry: tuple[Path, TrainedCard]) -> tuple[float, float, int, str]:
        card = entry[1]
        best = merit(card.validation_accuracy, card.validation_loss)
        return *best, card.position, card.architecture

    return sorted(cards, key=by_merit)


def _card_or_none(path: Path) -> TrainedCard | None:
    try:
        return read_card(path)
    except ValueError:
        if weights_of(path).exists():
            raise
    return None


def whole_cards(folder: Path) -> list[tuple[Path, TrainedCard]]:
    """Those that are not damaged, in the order of their names."""
    found = [(path, _undamaged(path)) for path in sorted(folder.glob("*.json"))]
    return [(path, card) for path, card in found if card]


def _undamaged(path: Path) -> TrainedCard | None:
    try:
        return read_card(path)
    except ValueError:
        return None


def read_card(path: Path) -> TrainedCard:
    """One card.

    Raises:
        ValueError, OSError: as `read_cards`.
    """
    try:
        card = TrainedCard.model_validate_json(read_regular(path, LARGEST_CARD))
    except ValidationError as error:
        raise _no_card(path, harmless(first_problem(error))) from None
    if card.format_version > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format {card.format_version}; this version reads up to {FORMAT_VERSION}: upgrade"
        )
    for name in (card.architecture, card.space.name):
        if _CONTROL.search(name):
            raise _no_card(path, f"{name!r} is no name")
    if path.stem != stem(card.architecture):
        raise ValueError(f"{path} is the card of another architecture, {card.architecture}: it was renamed")
    return card


def _no_card(path: Path, problem: str) -> ValueError:
    return ValueError(f"{printable(path)} is no card of a confirmed architecture ({problem})")

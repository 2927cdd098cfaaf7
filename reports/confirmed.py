"""The architectures that were trained on the real images to be kept: where their files are, and their order.

The search names its files by what is here, and the report finds them by it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

ESTIMATOR = "confirm"
"""The name under which the trials are stored."""
FOLDER = "confirmed"
"""Of a run: weights and cards."""
_LONGEST = 60
_OF_CLASS = "class_accuracy:"


def stem(architecture: str) -> str:
    """The name of an architecture's files, less the suffix: itself where that is a file's name.

    Otherwise its letters and digits, with eight of its SHA-256, so that no two share a name.
    """
    word = re.sub(r"[^A-Za-z0-9_]+", "-", architecture).strip("-")[:_LONGEST]
    digest = hashlib.sha256(architecture.encode(errors="surrogatepass")).hexdigest()[:8]
    return word if word == architecture != "" else f"{word}-{digest}"


def weights_file(architecture: str) -> str:
    """The weights' file, below the run's folder."""
    return f"{FOLDER}/{stem(architecture)}.safetensors"


def merit(validation_accuracy: float, validation_loss: float | None) -> tuple[float, float]:
    """What sorts them, the best first: accuracy on held-out images, then the loss there.

    The test split has no say. Of equals the one proposed first is first.
    """
    return -validation_accuracy, float("inf") if validation_loss is None else validation_loss


def of_class(number: int) -> str:
    """The score that is the accuracy on the test images of a class, by its number."""
    return f"{_OF_CLASS}{number}"


def of_all(scores: Mapping[str, float]) -> dict[str, float]:
    """The other scores."""
    return {name: value for name, value in scores.items() if not name.startswith(_OF_CLASS)}


def by_class(scores: Mapping[str, float]) -> dict[int, float]:
    """Those of the scores, by the class's number."""
    numbers = {name: name.removeprefix(_OF_CLASS) for name in scores if name.startswith(_OF_CLASS)}
    return {int(number): scores[name] for name, number in numbers.items() if number.isdecimal()}


def how_to_load(folder: str, which: int | str, space: str) -> str:
    """The line of Python; with the space where it is the user's own: its code is run only if it is named.

    Args:
        which: the rank among the confirmed, or the architecture.
    """
    own = f", space={space!r}" if ":" in space and not space.startswith("hub:") else ""
    chosen = f"rank={which}" if isinstance(which, int) else f"architecture={which!r}"
    return f"atom_nas.load_architecture({folder!r}, {chosen}{own})"

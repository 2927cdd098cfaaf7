"""The artifact of a confirmation: networks with their weights, in the folder `confirmed` of a run.

    NAME.safetensors        the weights, by their names in the network; tied ones once, by the first of theirs
    NAME.json               the card: space, image shape, classes, preprocessing, accuracies, recipe, versions
    whitening.safetensors   of the ZCA, only if the set was made with it; the same for all

The folder is enough to load from, wherever it is. Nothing here is ever unpickled.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save as serialize
from torch import Tensor

from atom_nas.confirmed.cards import FORMAT_VERSION, TrainedCard, read_card, weights_of
from distill.files import write_bytes, write_text
from distill.leg import apart
from distill.synthetic import digest
from reports.confirmed import stem


def save_trained(folder: Path, weights: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write a network's weights, then its card, so that what has a card is whole.

    Args:
        folder: exists already, and holds the whitening if there is one.
        weights: the network's state.
        card: what `TrainedCard` asks for, less format version and digest, which are added.
    """
    file = folder / f"{stem(card['architecture'])}.safetensors"
    write_bytes(file, serialize({name: tensor.contiguous() for name, tensor in apart(weights).items()}))
    whole = {"format_version": FORMAT_VERSION, **card, "weights_sha256": digest(file)}
    checked = TrainedCard.model_validate(whole).model_dump(mode="json")
    write_text(file.with_suffix(".json"), json.dumps(checked, indent=1, allow_nan=False) + "\n")


def is_whole(folder: Path, architecture: str, scores: Mapping[str, float]) -> bool:
    """Whether card and weights of an architecture are whole, and of the training with these scores."""
    path = folder / f"{stem(architecture)}.json"
    try:
        card = read_card(path)
        known = card.model_dump()
        same = all(known.get(name) == value for name, value in scores.items())
        return same and digest(weights_of(path)) == card.weights_sha256
    except (OSError, ValueError):
        return False

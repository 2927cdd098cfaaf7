"""From what the command `search` was given to the fields of `SearchSettings`."""

from collections.abc import Mapping
from typing import Any

from atom_nas.config import assigned, choose_dataset

FIELDS = {
    "directory": "synthetic",
    "set_": "training",
    "set_reference": "reference_training",
    "set_confirm": "confirm_training",
    "set_strategy": "strategy_options",
    "set_space": "space_options",
    "set_training_free": "training_free",
    "set_proxy_space": "proxy_space",
}
"""Where a parameter of `search` is not called as the field of `SearchSettings` that it sets."""
_ASSIGNED = {
    "training": ("", "epochs"),
    "reference_training": ("reference", "reference_epochs"),
    "confirm_training": ("confirm", "confirm_epochs"),
    "strategy_options": ("strategy", ""),
    "space_options": ("space", ""),
    "proxy_space": ("proxy-space", ""),
    "training_free": ("training-free", ""),
}
"""The fields that are given by `--set-STAGE KEY=VALUE`, and the option that says one of those keys, too."""


def search_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `SearchSettings` from the arguments of the command `search`, by their names.

    Raises:
        ValueError: an assignment is none, or what it says is said twice; a dataset is not known.
    """
    values = {FIELDS.get(name, name): value for name, value in given.items() if name != "context"}
    for field, (stage, beside) in _ASSIGNED.items():
        key = beside.rpartition("_")[2]
        values[field] = assigned(values[field], {key: values[beside]} if beside else {}, stage)
    values |= {name: (values[name],) for name in ("estimators", "combine")}
    return {**values, "dataset": choose_dataset(values["dataset"]) if values["dataset"] else None}

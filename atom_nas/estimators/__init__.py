"""Performance estimators by name: each turns a freshly built network into scores."""

import importlib
from types import ModuleType

from atom_nas.names import choose

ESTIMATORS: dict[str, str] = {
    "proxy": "train on the synthetic set, score on real validation images",
    "real": "train on the real training images, score on real validation and test images (the reference)",
}

SCORES = (
    "validation_accuracy",
    "validation_loss",
    "final_training_loss",
    "summed_training_loss",
    "parameters",
    "flops",
)
"""What every estimator's trials record; `reports.scores` says which way is better."""


def load(name: str) -> ModuleType:
    """The estimator's module, imported on first use; its `estimator(data, **options)` makes one.

    Raises:
        ValueError: on an unknown name, with the nearest matches.
    """
    return importlib.import_module(f"atom_nas.estimators.{choose('estimator', name, ESTIMATORS)}")

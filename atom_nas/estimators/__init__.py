"""Performance estimators by name: each turns a freshly built network into scores."""

import importlib
from types import ModuleType

from atom_nas.names import choose

TRAINING_FREE: dict[str, str] = {
    "synflow": "signal through the network with positive weights, log (Tanaka et al. 2020)",
    "naswot": "how differently images switch the units (Mellor et al. 2021)",
    "jacov": "how differently outputs depend on the pixels of images (Mellor et al. 2020)",
    "snip": "how much the loss depends on single weights (Lee et al. 2019)",
    "grad_norm": "norm of the loss's gradient (Abdelfattah et al. 2021)",
    "grasp": "how removing weights changes the flow of gradients (Wang et al. 2020)",
    "fisher": "how much the loss depends on single channels (Turner et al. 2020)",
    "zico": "steepness of the loss against its variation over images (Li et al. 2023)",
}
"""Read off one minibatch through the untrained network; each records the score of its name."""

ESTIMATORS: dict[str, str] = {
    "proxy": "train on the synthetic set, score on real validation images",
    "real": "train on the real training images, score on real validation and test images (the reference)",
    "confirm": "likewise, by a recipe of its own and with checkpoints: the networks that --confirm keeps",
    **{name: f"training-free: {summary}" for name, summary in TRAINING_FREE.items()},
}

SCORES = (
    "validation_accuracy",
    "validation_loss",
    "final_training_loss",
    "summed_training_loss",
    "parameters",
    "flops",
)
"""What the trials of every estimator that trains record; `reports.scores` says which way is better."""


def load(name: str) -> ModuleType:
    """The estimator's module, imported on first use; its `estimator(data, **options)` makes one.

    Raises:
        ValueError: on an unknown name, with the nearest matches.
    """
    return importlib.import_module(f"atom_nas.estimators.{choose('estimator', name, ESTIMATORS)}")


def training_free(text: str) -> tuple[str, ...]:
    """Comma-separated names of `TRAINING_FREE`, each once; `training-free` is all of them.

    Raises:
        ValueError: on an unknown name, with the nearest matches.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    allowed = ("training-free", *TRAINING_FREE)
    chosen = [choose("training-free estimator", name, allowed) for name in names]
    expanded = [each for name in chosen for each in (TRAINING_FREE if name == allowed[0] else (name,))]
    return tuple(dict.fromkeys(expanded))

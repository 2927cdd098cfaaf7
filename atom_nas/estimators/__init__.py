"""Performance estimators by name: each turns a freshly built network into scores."""

import importlib
from types import ModuleType

from atom_nas.names import choose
from reports.scores import COUNTED, EARLY_STOPPING

_ALL_TRAINING_FREE = "training-free"
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

TRAINED_BESIDE: dict[str, str] = {
    EARLY_STOPPING: "as the proxy, but on real images, for as many steps: what those would have given",
}
"""Trained as the proxy is, on other images; all scores are recorded, the report names them NAME:SCORE."""

AS_PROXY = ("proxy", *TRAINED_BESIDE)
"""Trained by the proxy's settings, on networks of its space, as often."""
SCORED_ONCE = (*AS_PROXY, "real")
"""By these, architectures that are the same network are scored once. Not by what is training-free, which may
count units in parts without effect; nor where networks are kept: their weights are that name's own."""

ESTIMATORS: dict[str, str] = {
    "proxy": "train on the synthetic set, score on real validation images",
    "real": "train on the real training images, score on real validation and test images (the reference)",
    "confirm": "likewise, by a recipe of its own and with checkpoints: the networks that --confirm keeps",
    **TRAINED_BESIDE,
    **{name: f"training-free: {summary}" for name, summary in TRAINING_FREE.items()},
}

SCORES = (
    "validation_accuracy",
    "validation_loss",
    "final_training_loss",
    "summed_training_loss",
    "tail_training_loss",
    "ema_training_loss",
    "training_loss_decay",
    "parameters",
    "flops",
)
"""What the trials of every estimator that trains record, the decay only of two epochs or more;
`reports.scores` says which way is better."""
OF_TRAINING = tuple(name for name in SCORES if name not in COUNTED)
"""Those of them that say something of the training."""


def combined(text: str) -> tuple[str, ...]:
    """Comma-separated names of scores to be ranked by together, each once; none for none.

    They are those of `SCORES` and of `TRAINING_FREE`.

    Raises:
        ValueError: on an unknown name, with the nearest matches; on one alone, or none of `SCORES`.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    chosen = dict.fromkeys(choose("score to combine", name, (*SCORES, *TRAINING_FREE)) for name in names)
    if len(chosen) == 1:
        raise ValueError(f"a combination takes at least two scores, not {names[0]!r} alone")
    if chosen and not set(chosen) & set(OF_TRAINING):
        raise ValueError(f"one of the scores to combine must come from a training: {', '.join(OF_TRAINING)}")
    return tuple(chosen)


def load(name: str) -> ModuleType:
    """The estimator's module, imported on first use; its `estimator(data, **options)` makes one.

    Raises:
        ValueError: on an unknown name, with the nearest matches.
    """
    module = choose("estimator", name, ESTIMATORS).replace("-", "_")
    return importlib.import_module(f"atom_nas.estimators.{module}")


def beside(text: str) -> tuple[str, ...]:
    """Comma-separated names of estimators to score with beside the proxy, each once.

    They are those of `TRAINED_BESIDE` and `TRAINING_FREE`; `training-free` is all of the latter.

    Raises:
        ValueError: on an unknown name, with the nearest matches.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    allowed = (_ALL_TRAINING_FREE, *TRAINED_BESIDE, *TRAINING_FREE)
    chosen = [choose("estimator to score with beside the proxy", name, allowed) for name in names]
    meant = [TRAINING_FREE if name == _ALL_TRAINING_FREE else (name,) for name in chosen]
    return tuple(dict.fromkeys(name for names in meant for name in names))

"""Performance estimators by name: each turns a freshly built network into scores."""

import importlib
from collections.abc import Sequence
from types import ModuleType

from atom_nas.names import choose
from reports.scores import COUNTED, EARLY_STOPPING, RANKING_COLUMNS
from reports.scores import SCORES as DESCRIBED
from reports.weights import weighted, weights_of
from search_spaces import is_own, resolve

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
"""By these, architectures that are the same network are scored once. Not by what is training-free, which
takes little and may count what is without effect; nor where networks are kept, by whose name weights go."""

ESTIMATORS: dict[str, str] = {
    "proxy": "always: train on the synthetic set, score on real validation images",
    "real": "by --reference real: train on the real training images, score on validation and test images",
    "confirm": "by --confirm: likewise, by a recipe of its own and with checkpoints: the networks to be kept",
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


def combined(text: str, own: Sequence[str] = ()) -> tuple[str, ...]:
    """Comma-separated names of scores to be ranked by together, each once, as NAME or NAME=WEIGHT.

    They are those of `SCORES` and of `TRAINING_FREE`; none for none.

    Args:
        own: scores of the user's own estimators, which may be among them.
    Raises:
        ValueError: on an unknown name, with the nearest matches; on a weight that is none; on one alone, or
            none of `SCORES`.
    """
    weights = weights_of(name for name in text.split(",") if name.strip())
    allowed = (*SCORES, *TRAINING_FREE, *own)
    try:
        chosen = {choose("score to combine", name, allowed): weight for name, weight in weights.items()}
    except ValueError as error:
        raise ValueError(f"{error}; one of your own has to be named too: --estimators FILE.py:NAME") from None
    if len(chosen) == 1:
        raise ValueError(f"a combination takes at least two scores, not {next(iter(chosen))!r} alone")
    if chosen and not set(chosen) & set(OF_TRAINING):
        raise ValueError(f"one of the scores to combine must come from a training: {', '.join(OF_TRAINING)}")
    return tuple(weighted(name, weight) for name, weight in chosen.items())


def load(name: str) -> ModuleType:
    """The estimator's module, imported on first use; its `estimator(data, **options)` makes one.

    Raises:
        ValueError: on an unknown name, with the nearest matches.
    """
    module = choose("estimator", name, ESTIMATORS).replace("-", "_")
    return importlib.import_module(f"atom_nas.estimators.{module}")


def beside(text: str) -> tuple[str, ...]:
    """Comma-separated names of estimators to score with beside the proxy, each once.

    They are those of `TRAINED_BESIDE` and `TRAINING_FREE`; `training-free` is all of the latter; and
    functions of the user's own, see `atom_nas.estimators.own`, which become /PATH/FILE.py:FUNCTION.

    Raises:
        ValueError: on an unknown name, with the nearest matches; no such file; or a function that is called
            as another score is.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    allowed = (_ALL_TRAINING_FREE, *TRAINED_BESIDE, *TRAINING_FREE)
    chosen: list[str] = []
    for name in names:
        if is_own(name):
            chosen.append(resolve(name))
        elif name.endswith(".py"):
            raise ValueError(f"{name} may define several estimators: name one by {name}:FUNCTION")
        else:
            try:
                known = choose("estimator to score with beside the proxy", name, allowed)
            except ValueError as error:
                raise ValueError(f"{error}; or FILE.py:FUNCTION of your own") from None
            chosen += TRAINING_FREE if known == _ALL_TRAINING_FREE else [known]
    _require_own_names(chosen)
    return tuple(dict.fromkeys(chosen))


def score_of_own(name: str) -> str:
    """The score that an estimator of the user's own records: its function's name."""
    return name.rpartition(":")[2]


def _require_own_names(chosen: Sequence[str]) -> None:
    """Scores are told apart by their names, those of the user's by the functions'."""
    seen: dict[str, str] = {}
    for name in filter(is_own, chosen):
        function = score_of_own(name)
        if function in {*DESCRIBED, *ESTIMATORS, *RANKING_COLUMNS}:
            raise ValueError(f"{name}: {function} is a name that atom-nas itself uses: rename the function")
        if seen.setdefault(function, name) != name:
            raise ValueError(f"{name} and {seen[function]} have one name: rename one of them")

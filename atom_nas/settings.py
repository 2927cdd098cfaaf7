"""What a search is asked to do."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import search_spaces
from atom_nas import engines, estimators, recipes
from atom_nas.estimators import proxy, real
from atom_nas.estimators.confirm import EPOCHS as CONFIRM_EPOCHS
from atom_nas.names import choose
from atom_nas.tables import SCORE
from distill.synthetic import SyntheticSet
from distill.validation import require_types
from reports.scores import COMBINED, MEAN_OF_RANKS
from reports.weights import weights_of

_UNSAID: Any = None
_PLAIN: Mapping[str, Any] = {
    "proxy_space": {},
    "epochs": proxy.EPOCHS,
    "training": {},
    "repeats": 1,
    "score": "validation_accuracy",
    "combine": (),
}
"""What recipes may bring, and what holds where one does not."""
BY_RECIPES = frozenset(_PLAIN)
_OPTIONS = (
    *("space_options", "proxy_space", "strategy_options", "training_free"),
    *("training", "reference_training", "confirm_training"),
)
_EPOCHS = {
    "epochs": "training",
    "reference_epochs": "reference_training",
    "confirm_epochs": "confirm_training",
}
_OF_TRAININGS = (
    *("reference_samples", "reference_images", "reference_epochs"),
    *("confirm", "confirm_images", "confirm_epochs"),
)


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """One search.

    What is left out of `proxy_space`, `epochs`, `training`, `repeats`, `score` and `combine` is as the recipe
    of the space has it (`atom_nas.recipes`); of a group of settings entry by entry, so that {} leaves all to
    it. It is filled in at once: for another space make new settings, as `dataclasses.replace` keeps it.

    Attributes:
        synthetic: folder of a synthetic set, or the set.
        out: the run's folder.
        space, space_options: a registered space, `hub:NAME`, or a class of yours by FILE.py:CLASS or
            module:CLASS; and its options.
        proxy_space: other options for the networks that the proxy trains, and early-stopping: smaller ones
            of the same architectures, such as cells=1 in `nasbench201`. The reference, the networks that are
            kept, training-free scores and counts are of the space's own.
        samples: architectures to propose; a resumed run may raise it, of successive halving while none is
            ranked. None: 48, or all of `architectures`.
        strategy, strategy_options: a registered strategy and its options.
        architectures: CSV file of architectures; all are scored in their order, or, with `samples`, so many
            that the strategy draws among them. None: the strategy draws among all of the space.
        max_parameters, max_flops: propose no network with more trainable parameters, or more operations in
            one image's forward pass (a multiply-add counts as two); of `architectures` larger ones are left
            out. They are counted on the space's own networks. None: no limit.
        reference: "real" (train on the real images), "none", or the path of a CSV file of scores.
        reference_column: the column of that file that holds the scores.
        reference_samples: train the reference of a seeded subset of this many architectures; None: of all.
        reference_images: train the reference on a subset of this many real images; None: on all.
        reference_epochs: of the reference.
        reference_training: fields of the reference's `TrainingConfig` in place of `estimators.real.RECIPE`'s.
        epochs: of the proxy.
        training: other fields of the proxy's `TrainingConfig` (epochs, if among them, are the `epochs`; so it
            is with the other trainings'); of batch_size see `atom_nas.estimators.proxy.even_batch`.
        repeats: trainings of each architecture as the proxy, that differ in the seed alone, and by
            early-stopping; scores are their means.
        unwhiten: of a whitened set train on the images as they were before, and on real ones that are not
            whitened; of other sets it changes nothing.
        validation_images: score on a subset of this many validation images; None: on all.
        balanced: all accuracies are balanced, the mean over the classes of the share that is right of each:
            where classes are not of one size, those of few images count as much as the others.
        confirm: train so many of the best on the real images, and keep their weights; None: none.
        confirm_images: train those on a subset of this many real images; None: on all.
        confirm_epochs: of these trainings.
        confirm_training: fields of their `TrainingConfig` in place of `estimators.real.RECIPE`'s.
        estimators: names of estimators to score with beside the proxy, see `atom_nas.estimators.beside`.
        training_free: fields of `atom_nas.estimators._untrained.UntrainedConfig`: which minibatch the
            training-free ones of them look at.
        score: the score that ranks, and that strategies learn from; with successive halving, the one by which
            architectures go on. `mean_of_ranks` ranks by the mean of an architecture's ranks by each of
            `combine`, known only once all are scored: strategies learn from `criterion` then. With successive
            halving these are the ranks among those that trained as long.
        combine: the scores of which `mean_of_ranks` is made: of the proxy, and of training-free estimators,
            which are then scored with as well; NAME=WEIGHT counts one more or less than the others. Empty:
            those of `reports.scores.COMBINED` that are measured.
        engine: a registered engine.
        workers: processes; None: the usable cores on a CPU; on a GPU as many, but no more than 4 and one for
            every 2 GiB that are free on it. Scores do not depend on it.
        trial_limit: seconds after which an architecture counts as failed, as the proxy and by each of
            `estimators`; the reference and final models have no limit. Where it is reached, results depend on
            how fast the machine is. None: however long it takes.
        seed: >= 0, of proposals, initialisations, batches and augmentation.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
        dataset: where the real data is now; None: where the synthetic set's card says.
        data_dir: where datasets are kept; None: the default folder.
        resume: go on with the interrupted run in `out`.
        command: the command line, for the record.
        recipe: False: leave the recipe out; the proxy is then trained by `TrainingConfig`'s defaults, for 100
            epochs.
    Raises:
        ValueError: a setting is wrong.
    """

    synthetic: Path
    out: Path
    space: str = "convnet"
    space_options: Mapping[str, Any] = field(default_factory=dict)
    proxy_space: Mapping[str, Any] = _UNSAID
    samples: int | None = None
    strategy: str = "random"
    strategy_options: Mapping[str, Any] = field(default_factory=dict)
    architectures: Path | None = None
    max_parameters: float | None = None
    max_flops: float | None = None
    reference: str = "real"
    reference_column: str = SCORE
    reference_samples: int | None = None
    reference_images: int | None = None
    reference_epochs: int = real.EPOCHS
    reference_training: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = _UNSAID
    training: Mapping[str, Any] = _UNSAID
    repeats: int = _UNSAID
    unwhiten: bool = True
    validation_images: int | None = None
    balanced: bool = False
    confirm: int | None = None
    confirm_images: int | None = None
    confirm_epochs: int = CONFIRM_EPOCHS
    confirm_training: Mapping[str, Any] = field(default_factory=dict)
    estimators: tuple[str, ...] = ()
    training_free: Mapping[str, Any] = field(default_factory=dict)
    score: str = _UNSAID
    combine: tuple[str, ...] = _UNSAID
    engine: str = "local"
    workers: int | None = None
    trial_limit: float | None = None
    seed: int = 0
    device: str = "auto"
    dataset: str | None = None
    data_dir: Path | None = None
    resume: bool = False
    command: str = ""
    recipe: bool = True

    def __post_init__(self) -> None:
        for name in ("synthetic", "out", "architectures", "data_dir"):
            value = getattr(self, name)
            # Scripts give paths as text as well, and sets, which know their folder.
            where = value.path if isinstance(value, SyntheticSet) else value
            object.__setattr__(self, name, None if where is None else Path(where))
        for name in _OPTIONS:
            object.__setattr__(self, name, _as_options(name, getattr(self, name)))
        self._take_epochs()
        require_types(self)
        object.__setattr__(self, "space", search_spaces.resolve(self.space))
        self._complete(recipes.settings(self.space) if self.recipe else {})
        for name in ("estimators", "combine"):
            value = getattr(self, name)
            if not isinstance(value, str | tuple | list):
                raise ValueError(f"{name} must be names, not {value!r}")
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        if self.score in estimators.TRAINING_FREE:
            raise ValueError(
                f"a search ranks by scores of trainings, and {self.score} is none: measure it by "
                f"--estimators {self.score} and rank by it in a report (report RUN --score {self.score}), or "
                f"take it into a mean: --score {MEAN_OF_RANKS} --combine validation_accuracy,{self.score}"
            )
        choose("score", self.score, (*estimators.SCORES, MEAN_OF_RANKS))
        beside = estimators.beside(",".join(self.estimators))
        own = [estimators.score_of_own(name) for name in beside if search_spaces.is_own(name)]
        combined = estimators.combined(",".join(self.combine), own)
        object.__setattr__(self, "combine", combined)
        free = [name for name in weights_of(combined) if name in estimators.TRAINING_FREE]
        object.__setattr__(self, "estimators", tuple(dict.fromkeys([*beside, *free])))
        choose("engine", self.engine, engines.ENGINES)
        for name in ("samples", "epochs", "repeats", "workers", "validation_images", *_OF_TRAININGS):
            _at_least(1, name, getattr(self, name))
        _at_least(0, "seed", self.seed)
        for name in ("max_parameters", "max_flops"):
            most = getattr(self, name)
            if most is not None and not 1 <= most < math.inf:
                raise ValueError(f"{name} must be a number from 1, not {most!r}")
        if self.trial_limit is not None and not 0 < self.trial_limit < math.inf:
            raise ValueError(f"trial_limit must be a number of seconds above 0, not {self.trial_limit:g}")

    def _complete(self, brought: Mapping[str, Any]) -> None:
        """Fill in what was left out."""
        assert brought.keys() <= BY_RECIPES, "a recipe brings what no recipe may"
        for name, plain in _PLAIN.items():
            said, own = getattr(self, name), brought.get(name, plain)
            if isinstance(own, Mapping):
                object.__setattr__(self, name, {**own, **(said or {})})
            elif said is None:
                object.__setattr__(self, name, own)

    def _take_epochs(self) -> None:
        """Put those that a group of settings names where epochs have a field of their own."""
        for name, group in _EPOCHS.items():
            options = getattr(self, group) or {}
            if type(options.get("epochs")) is int:
                object.__setattr__(self, name, options["epochs"])
                object.__setattr__(
                    self, group, {key: each for key, each in options.items() if key != "epochs"}
                )

    @property
    def limits(self) -> dict[str, float]:
        """The most that a network may have, by what is counted; empty where nothing is limited."""
        limits = {"parameters": self.max_parameters, "flops": self.max_flops}
        return {what: most for what, most in limits.items() if most is not None}

    @property
    def criterion(self) -> str:
        """The score of each training that is shown, and that strategies learn from."""
        if self.score != MEAN_OF_RANKS:
            return self.score
        combined = weights_of(self.combine)
        return next((name for name in combined if name in estimators.OF_TRAINING), "validation_accuracy")

    @property
    def combined(self) -> tuple[str, ...]:
        """The scores of which the one that ranks is a mean of ranks; none where it is no mean."""
        if self.score != MEAN_OF_RANKS:
            return ()
        measured = {*estimators.OF_TRAINING, *self.estimators}
        return self.combine or tuple(name for name in COMBINED if name in measured)

    @property
    def reference_kind(self) -> str:
        """ "real", "none" or "table"."""
        return self.reference if self.reference in ("real", "none") else "table"


def _as_options(name: str, given: Any) -> dict[str, Any] | None:
    """Options by name as run.json keeps them; None where nothing was said."""
    if given is None:
        return None
    if not (isinstance(given, Mapping) and all(isinstance(option, str) for option in given)):
        raise ValueError(f"{name} must be settings by name, not {given!r}")
    options = {
        option: list(value) if isinstance(value, tuple | range) else value for option, value in given.items()
    }
    try:
        json.dumps(options)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} must hold numbers, text, True, False, None and lists of these, not {given!r}"
        ) from None
    return options


def _at_least(least: int, name: str, value: int | None) -> None:
    if value is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")

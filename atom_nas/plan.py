"""What a search is asked to do, checked and loaded in full before any work."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

import search_spaces
from atom_nas import engines, estimators
from atom_nas.estimators import proxy, real
from atom_nas.estimators.base import Estimator, SearchData
from atom_nas.estimators.confirm import EPOCHS as CONFIRM_EPOCHS
from atom_nas.estimators.confirm import ConfirmEstimator
from atom_nas.names import choose
from atom_nas.run_folder import RECORD, read_record
from atom_nas.runner import load_space
from atom_nas.stages import make_estimators, settle_trainings
from atom_nas.strategies import LEARNING, HalvingConfig
from atom_nas.strategies import configure as configure_strategy
from atom_nas.tables import ArchitectureList, ReferenceTable, read_architectures, read_reference
from distill import synthetic as synthetic_sets
from distill.data import RealDataset
from distill.environment import usable_cores
from distill.settings import resolve_device
from distill.synthetic import SyntheticSet
from reports.scores import MEAN_OF_RANKS
from search_spaces.among import Among
from search_spaces.base import Space, count_fitting, first_fitting
from search_spaces.foreign import NniSpace, probe

SAMPLES = 48
"""Architectures to propose, unless the settings say how many or list them."""
_MOST_ON_A_GPU = 4
_A_WORKERS_MEMORY = 2 * 2**30  # bytes: its CUDA context, and a batch of the largest networks


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """One search.

    Attributes:
        synthetic: folder of a synthetic set.
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
        reference: "real" (train on the real images), "none", or the path of a CSV file of scores.
        reference_samples: train the reference of a seeded subset of this many architectures; None: of all.
        reference_images: train the reference on a subset of this many real images; None: on all.
        reference_epochs: of the reference.
        reference_training: other fields of the reference's `TrainingConfig`.
        epochs: of the proxy.
        training: other fields of the proxy's `TrainingConfig`.
        repeats: trainings of each architecture as the proxy, that differ in the seed alone, and by
            early-stopping; scores are their means.
        validation_images: score on a subset of this many validation images; None: on all.
        confirm: train so many of the best on the real images, and keep their weights; None: none.
        confirm_epochs: of these trainings.
        confirm_training: other fields of their `TrainingConfig`.
        estimators: names of estimators to score with beside the proxy, see `atom_nas.estimators.beside`.
        score: the score that ranks, and that strategies learn from; with successive halving, the one by which
            architectures go on. `mean_of_ranks` ranks by the mean of an architecture's ranks by each of
            `combine`, known only once all are scored: strategies learn from `criterion` then.
        combine: the scores of which `mean_of_ranks` is made: of the proxy, and of training-free estimators,
            which are then scored with as well. Empty: as `reports.combinations` has it.
        engine: a registered engine.
        workers: processes; None: the usable cores on a CPU; on a GPU as many, but no more than 4 and one for
            every 2 GiB that are free on it. Scores do not depend on it.
        seed: >= 0, of proposals, initialisations, batches and augmentation.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
        dataset: where the real data is now; None: where the synthetic set's card says.
        data_dir: where datasets are kept; None: the default folder.
        resume: go on with the interrupted run in `out`.
        command: the command line, for the record.
    """

    synthetic: Path
    out: Path
    space: str = "convnet"
    space_options: Mapping[str, Any] = field(default_factory=dict)
    proxy_space: Mapping[str, Any] = field(default_factory=dict)
    samples: int | None = None
    strategy: str = "random"
    strategy_options: Mapping[str, Any] = field(default_factory=dict)
    architectures: Path | None = None
    reference: str = "real"
    reference_samples: int | None = None
    reference_images: int | None = None
    reference_epochs: int = real.EPOCHS
    reference_training: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = proxy.EPOCHS
    training: Mapping[str, Any] = field(default_factory=dict)
    repeats: int = 1
    validation_images: int | None = None
    confirm: int | None = None
    confirm_epochs: int = CONFIRM_EPOCHS
    confirm_training: Mapping[str, Any] = field(default_factory=dict)
    estimators: tuple[str, ...] = ()
    score: str = "validation_accuracy"
    combine: tuple[str, ...] = ()
    engine: str = "local"
    workers: int | None = None
    seed: int = 0
    device: str = "auto"
    dataset: str | None = None
    data_dir: Path | None = None
    resume: bool = False
    command: str = ""

    def __post_init__(self) -> None:
        for name in ("synthetic", "out", "architectures", "data_dir"):
            value = getattr(self, name)
            # Scripts give paths as text as well.
            object.__setattr__(self, name, None if value is None else Path(value))
        object.__setattr__(self, "space", search_spaces.resolve(self.space))
        choose("score", self.score, (*estimators.SCORES, MEAN_OF_RANKS))
        combined = estimators.combined(",".join(self.combine))
        object.__setattr__(self, "combine", combined)
        beside = estimators.beside(",".join(self.estimators))
        free = [name for name in combined if name in estimators.TRAINING_FREE]
        object.__setattr__(self, "estimators", tuple(dict.fromkeys([*beside, *free])))
        choose("engine", self.engine, engines.ENGINES)
        for name in ("samples", "reference_samples", "reference_images", "validation_images", "workers"):
            _at_least(1, name, getattr(self, name))
        for name in ("epochs", "repeats", "reference_epochs", "confirm", "confirm_epochs"):
            _at_least(1, name, getattr(self, name))
        _at_least(0, "seed", self.seed)

    @property
    def criterion(self) -> str:
        """The score of each training that is shown, that strategies learn from, and by which halving goes."""
        if self.score != MEAN_OF_RANKS:
            return self.score
        return next((name for name in self.combine if name in estimators.OF_TRAINING), "validation_accuracy")

    @property
    def reference_kind(self) -> str:
        """ "real", "none" or "table"."""
        return self.reference if self.reference in ("real", "none") else "table"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A search with everything loaded.

    Attributes:
        settings: as given.
        synthetic: the synthetic set.
        dataset: the real dataset it was distilled from.
        data: the images of both.
        space: what is searched.
        fitting, size: how many of the space's architectures fit the images, None if there are too many to
            count; and how many there are.
        drawn: what the strategy draws from: the space, or those of its architectures that are listed; None
            if all that are listed are scored.
        expected: how many architectures will be proposed at most.
        strategy_options: of the strategy, with every default resolved for this many samples.
        halving: how trainings are stopped early, or None.
        space_options: of the space, as it understood what was given, however that was written.
        listed: the architectures to which the search is confined, or None.
        table: the published ranking, or None.
        proxy: the cheap estimator.
        others: those to score with beside it.
        reference: the reference estimator, or None.
        confirm: the estimator that trains the best to be kept, or None.
        device: where trials run.
        workers: processes.
        fallback: why trainings are in another precision than was asked for; None if they are not.
    """

    settings: SearchSettings
    synthetic: SyntheticSet
    dataset: RealDataset
    data: SearchData
    space: Space
    fitting: int | None
    size: int
    drawn: Space | None
    expected: int
    strategy_options: dict[str, Any]
    halving: HalvingConfig | None
    space_options: dict[str, Any]
    listed: ArchitectureList | None
    table: ReferenceTable | None
    proxy: Estimator
    others: tuple[Estimator, ...]
    reference: Estimator | None
    confirm: ConfirmEstimator | None
    device: torch.device
    workers: int
    fallback: str | None

    @property
    def samples(self) -> int:
        """How many architectures are asked for."""
        return _samples(self.settings, self.listed)


def prepare(settings: SearchSettings) -> Plan:
    """Load and check all that the settings name.

    Raises:
        ValueError: something named is missing, damaged, unknown or of no use; one line.
    """
    synthetic = synthetic_sets.load(settings.synthetic)
    space = _space(settings, synthetic)
    _check_proxy_space(settings, synthetic, space)
    listed = read_architectures(settings.architectures, space) if settings.architectures else None
    table = _read_table(settings, space)
    if listed and table and not table.scores.keys() & set(listed.architectures):
        raise ValueError(
            f"{settings.reference} scores none of the {len(listed.architectures)} architectures of "
            f"{settings.architectures}: give a reference that shares some, or --reference none"
        )
    samples = _samples(settings, listed)
    drawn = _drawn(settings, space, listed)
    strategy = configure_strategy(settings.strategy, _strategy_options(settings), samples)
    halving = strategy if isinstance(strategy, HalvingConfig) else None
    _check_score(settings, halving)
    device = resolve_device(settings.device)
    name = synthetic.card["dataset"]["name"]
    trainings = settle_trainings(settings, name, device)
    dataset = synthetic.real_dataset(settings.data_dir, settings.dataset)
    data = search_data(synthetic, dataset)
    fitting, size = count_fitting(space, data.image_shape)
    first_fitting(space, data.image_shape)
    at_most = count_fitting(drawn, data.image_shape)[0] if listed and drawn else fitting
    if at_most == 0:
        raise ValueError(
            f"none of the architectures of {settings.architectures} fits images of shape {data.image_shape}"
        )
    if table and listed is None:
        covered = sum(space.misfit(space.parse(name), data.image_shape) is None for name in table.scores)
        _warn_of_gaps(settings, covered, fitting, foreign=table.foreign)
    if isinstance(space, NniSpace):
        probe(space, data.image_shape, data.classes)
    return Plan(
        settings=settings,
        synthetic=synthetic,
        dataset=dataset,
        data=data,
        space=space,
        fitting=fitting,
        size=size,
        drawn=drawn,
        expected=samples if drawn is None or at_most is None else min(samples, at_most),
        strategy_options=asdict(strategy),
        halving=halving,
        space_options=_space_options(settings, space),
        listed=listed,
        table=table,
        **make_estimators(settings, trainings, data),
        device=device,
        workers=settings.workers or default_workers(device),
        fallback=trainings.fallback,
    )


def _samples(settings: SearchSettings, listed: ArchitectureList | None) -> int:
    return settings.samples or (len(listed.architectures) if listed else SAMPLES)


def _drawn(settings: SearchSettings, space: Space, listed: ArchitectureList | None) -> Space | None:
    """What the strategy draws from, None where nothing is drawn."""
    if listed is None:
        return space
    if settings.samples:
        return Among(space, listed.architectures)
    if settings.strategy in LEARNING:
        raise ValueError(
            f"{settings.strategy} chooses what to score: say by --samples how many of the "
            f"{len(listed.architectures)} architectures of {settings.architectures} it may, or leave the "
            "strategy out and all are scored"
        )
    return None


def _warn_of_gaps(settings: SearchSettings, covered: int, fitting: int | None, *, foreign: int) -> None:
    """Say before any training that a reference will have gaps, where it surely will."""
    if fitting is None or covered >= fitting:
        return
    samples = _samples(settings, None)
    way_out = f": to draw among those alone add --architectures {settings.reference} --samples {samples}"
    warnings.warn(
        f"{settings.reference} scores {covered:,} of the {fitting:,} architectures of the space, so that "
        f"about {covered / fitting:.0%} of the samples will have a reference"
        f"{'' if foreign else way_out}",
        stacklevel=3,
    )


def _space(
    settings: SearchSettings, synthetic: SyntheticSet, options: Mapping[str, Any] | None = None
) -> Space:
    channels, height, width = synthetic.card["dataset"]["image_shape"]
    classes = len(synthetic.classes)
    given = {**settings.space_options, **(options or {})}
    return load_space(settings.space, given, (channels, height, width), classes)


def _check_proxy_space(settings: SearchSettings, synthetic: SyntheticSet, space: Space) -> None:
    """Refuse options by which the proxy's networks would be of other architectures."""
    if settings.proxy_space and _space(settings, synthetic, settings.proxy_space).choices != space.choices:
        raise ValueError(
            f"the proxy's space with {', '.join(sorted(settings.proxy_space))} has other architectures than "
            f"{settings.space}: give options that only change how a network is built; to narrow the space, "
            "--set-space"
        )


def _check_score(settings: SearchSettings, halving: HalvingConfig | None) -> None:
    """Refuse to rank by a rate where some training has one epoch."""
    shortest = halving.epochs(settings.epochs)[0] if halving else settings.epochs
    parts = settings.combine if settings.score == MEAN_OF_RANKS else (settings.score,)
    if "training_loss_decay" in parts and shortest < 2:
        raise ValueError(
            f"score training_loss_decay is a rate over epochs, and trainings stop after {shortest} of "
            f"{settings.epochs}: give more --epochs, or rank by another score"
        )


def _space_options(settings: SearchSettings, space: Space) -> dict[str, Any]:
    """As the space understood them: of a choice all values that are left."""
    given = sorted(settings.space_options)
    if isinstance(space, NniSpace):  # the constructor's, which has nothing to do with the labels of choices
        return {name: settings.space_options[name] for name in given}
    return {
        name: list(space.choices[name]) if name in space.choices else settings.space_options[name]
        for name in given
    }


def default_workers(device: torch.device) -> int:
    """The usable cores; on a GPU no more than 4, and no more than its free memory has room for."""
    cores = usable_cores()
    if device.type != "cuda":
        return cores
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(cores, _MOST_ON_A_GPU, free // _A_WORKERS_MEMORY))


def _strategy_options(settings: SearchSettings) -> Mapping[str, Any]:
    """What was given; else, on resuming, what the run began with: some defaults depend on the samples."""
    if settings.strategy_options or not (settings.resume and (settings.out / RECORD).is_file()):
        return settings.strategy_options
    begun = read_record(settings.out).get("strategy")
    same = isinstance(begun, dict) and begun.get("name") == settings.strategy
    return begun.get("options", {}) if same and begun else {}


def search_data(synthetic: SyntheticSet, dataset: RealDataset) -> SearchData:
    """The images of a synthetic set and of the dataset it came from.

    Raises:
        ValueError: the set was distilled without holding out validation images.
    """
    fit, validation = synthetic.split_real(dataset)
    if not len(validation):
        raise ValueError(
            f"{synthetic.path} was distilled with validation_fraction=0, so there are no held-out images to "
            "score on: distill it again with a positive fraction"
        )
    return SearchData(
        synthetic_images=synthetic.images,
        synthetic_labels=synthetic.labels,
        fit=fit,
        validation=validation,
        test=dataset.test,
        preprocessing=synthetic.preprocessing,
        classes=len(synthetic.classes),
        soft_labels=synthetic.soft_labels,
    )


def _at_least(least: int, name: str, value: int | None) -> None:
    if value is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")


def _read_table(settings: SearchSettings, space: Space) -> ReferenceTable | None:
    if settings.reference_kind != "table":
        return None
    path = Path(settings.reference)
    if not path.is_file():
        raise ValueError(
            f"unknown reference {settings.reference!r}: give 'real', 'none' or a CSV file that exists"
        )
    return read_reference(path, space)

"""What a search is asked to do, checked and loaded in full before any work."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch

from atom_nas.building import load_space
from atom_nas.estimators.base import Estimator, SearchData
from atom_nas.estimators.confirm import ConfirmEstimator
from atom_nas.estimators.own import try_out
from atom_nas.limits import bounded, listed_within
from atom_nas.run_folder import RECORD, read_record
from atom_nas.search_estimators import make_estimators, settle_trainings
from atom_nas.settings import SearchSettings
from atom_nas.strategies import LEARNING, HalvingConfig
from atom_nas.strategies import configure as configure_strategy
from atom_nas.tables import SCORE, ArchitectureList, ReferenceTable, read_architectures, read_reference
from distill import synthetic as synthetic_sets
from distill.data import RealDataset
from distill.environment import usable_cores
from distill.settings import resolve_device
from distill.synthetic import SyntheticSet
from reports.scores import MEAN_OF_RANKS
from reports.weights import weights_of
from search_spaces.among import Among
from search_spaces.base import ImageShape, Space, count_fitting, first_fitting
from search_spaces.bounded import Bounded
from search_spaces.foreign import NniSpace, probe

SAMPLES = 48
"""Architectures to propose, unless the settings say how many or list them."""
_MOST_ON_A_GPU = 4
_A_WORKERS_MEMORY = 2 * 2**30  # bytes: its CUDA context, and a batch of the largest networks


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """A search with everything loaded.

    Attributes:
        settings: as given.
        epochs: of the proxy, whatever said how many.
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
    epochs: int
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


def prepare(settings: SearchSettings) -> SearchPlan:
    """Load and check all that the settings name.

    Raises:
        ValueError: something named is missing, damaged, unknown or of no use; one line.
    """
    synthetic = synthetic_sets.load(settings.synthetic)
    _warn_of_whitening(settings, synthetic)
    space = _space(settings, synthetic)
    _check_proxy_space(settings, synthetic, space)
    within = bounded(settings, space, *_made_for(synthetic))
    listed = _listed(settings, space, within)
    table = _read_table(settings, space)
    _require_shared(settings, listed, table)
    samples = _samples(settings, listed)
    drawn = _drawn(settings, within or space, listed)
    strategy = configure_strategy(settings.strategy, _strategy_options(settings), samples)
    halving = strategy if isinstance(strategy, HalvingConfig) else None
    device = resolve_device(settings.device)
    name = synthetic.card["dataset"]["name"]
    trainings = settle_trainings(settings, len(synthetic.labels), name, device)
    _check_score(settings, trainings.proxy.epochs, halving)
    dataset = synthetic.real_dataset(data_dir=settings.data_dir, name=settings.dataset)
    data = search_data(synthetic, dataset, unwhiten=settings.unwhiten, balanced=settings.balanced)
    fitting, size = count_fitting(space, data.image_shape)
    first_fitting(space, data.image_shape)
    at_most = _count_drawn(settings, drawn, data.image_shape) if drawn else fitting
    if table and listed is None:
        _warn_of_gaps(settings, table, drawn or space, at_most, data.image_shape)
    if isinstance(space, NniSpace):
        probe(space, data.image_shape, data.classes)
    made = make_estimators(settings, trainings, data)
    if settings.trial_limit is None:  # a function that hangs would do so here
        try_out(made["others"], listed.architectures if listed else (), within or space, data, device)
    return SearchPlan(
        settings=settings,
        epochs=trainings.proxy.epochs,
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
        **made,
        device=device,
        workers=settings.workers or default_workers(device),
        fallback=trainings.fallback,
    )


def _count_drawn(settings: SearchSettings, drawn: Space, image_shape: ImageShape) -> int | None:
    found = count_fitting(drawn, image_shape)[0]
    if found == 0:
        raise ValueError(
            f"none of the architectures of {settings.architectures} fits images of shape {image_shape}"
        )
    return found


def _warn_of_whitening(settings: SearchSettings, synthetic: SyntheticSet) -> None:
    if synthetic.preprocessing.whitening is not None and not settings.unwhiten:
        warnings.warn(
            f"{synthetic.path} is whitened (ZCA), as accuracy wants it: cells of NAS-Bench-201 were ranked "
            "far worse by such images than by what they were before (docs/ranking.md); a new search without "
            "--no-unwhiten goes by the latter",
            stacklevel=3,
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


def _warn_of_gaps(
    settings: SearchSettings,
    table: ReferenceTable,
    drawn: Space,
    fitting: int | None,
    image_shape: ImageShape,
) -> None:
    """Say before any training that a reference will have gaps, where it surely will."""
    if fitting is None or settings.resume:
        return
    covered = sum(drawn.misfit(drawn.parse(name), image_shape) is None for name in table.scores)
    if covered >= fitting:
        return
    share = covered / fitting
    samples = _samples(settings, None)
    way_out = f": to draw among those alone add --architectures {settings.reference} --samples {samples}"
    warnings.warn(
        f"{settings.reference} scores {covered:,} of the {fitting:,} architectures of the space"
        f"{' within the limits' * bool(settings.limits)}, so that "
        f"{'less than 1%' if share < 0.01 else f'about {share:.0%}'} of the samples will have a reference"
        f"{'' if table.foreign else way_out}",
        stacklevel=3,
    )


def _made_for(synthetic: SyntheticSet) -> tuple[ImageShape, int]:
    """The shape of the images that networks take, and how many classes they tell apart."""
    channels, height, width = synthetic.card["dataset"]["image_shape"]
    return (channels, height, width), len(synthetic.classes)


def _space(
    settings: SearchSettings, synthetic: SyntheticSet, options: Mapping[str, Any] | None = None
) -> Space:
    given = {**settings.space_options, **(options or {})}
    return load_space(settings.space, given, *_made_for(synthetic))


def _listed(settings: SearchSettings, space: Space, within: Bounded | None) -> ArchitectureList | None:
    if settings.architectures is None:
        return None
    listed = read_architectures(settings.architectures, space)
    return listed_within(listed, within, settings.architectures) if within else listed


def _require_shared(
    settings: SearchSettings, listed: ArchitectureList | None, table: ReferenceTable | None
) -> None:
    if listed and table and not table.scores.keys() & set(listed.architectures):
        raise ValueError(
            f"{settings.reference} scores none of the {len(listed.architectures)} architectures of "
            f"{settings.architectures}: give a reference that shares some, or --reference none"
        )


def _check_proxy_space(settings: SearchSettings, synthetic: SyntheticSet, space: Space) -> None:
    """Refuse options by which the proxy's networks would be of other architectures."""
    if settings.proxy_space and _space(settings, synthetic, settings.proxy_space).choices != space.choices:
        raise ValueError(
            f"the proxy's space with {', '.join(sorted(settings.proxy_space))} has other architectures than "
            f"{settings.space}: give options that only change how a network is built; to narrow the space, "
            "--set-space"
        )


def _check_score(settings: SearchSettings, epochs: int, halving: HalvingConfig | None) -> None:
    """Refuse to rank by a rate where some training has one epoch."""
    shortest = halving.epochs(epochs)[0] if halving else epochs
    parts = weights_of(settings.combine) if settings.score == MEAN_OF_RANKS else (settings.score,)
    if "training_loss_decay" in parts and shortest < 2:
        raise ValueError(
            f"score training_loss_decay is a rate over epochs, and trainings stop after {shortest} of "
            f"{epochs}: give {_enough(halving)} --epochs or more, or rank by another score"
        )


def _enough(halving: HalvingConfig | None) -> int:
    """The epochs of a training by which its first rung has two."""
    return next(total for total in count(2) if halving is None or halving.epochs(total)[0] > 1)


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
    """As given; on resuming, the rest as the run began with it: some defaults depend on the samples."""
    if not (settings.resume and (settings.out / RECORD).is_file()):
        return settings.strategy_options
    begun = read_record(settings.out).get("strategy")
    same = isinstance(begun, dict) and begun.get("name") == settings.strategy
    options = begun.get("options") if same and isinstance(begun, dict) else None
    return {**(options or {}), **settings.strategy_options}


def search_data(
    synthetic: SyntheticSet, dataset: RealDataset, *, unwhiten: bool, balanced: bool = False
) -> SearchData:
    """The images of a synthetic set and of the dataset it came from.

    Args:
        unwhiten: undo the whitening of the set, if it is whitened, and leave it out for real images.
        balanced: accuracies are, see `SearchData`.
    Raises:
        ValueError: the set was distilled without holding out validation images.
    """
    fit, validation = synthetic.split_real(dataset)
    if not len(validation):
        raise ValueError(
            f"{synthetic.path} was distilled with validation_fraction=0, so there are no held-out images to "
            "score on: distill it again with a positive fraction"
        )
    as_it_is = (synthetic.images, synthetic.preprocessing)
    images, preprocessing = synthetic.unwhitened() if unwhiten else as_it_is
    return SearchData(
        synthetic_images=images,
        synthetic_labels=synthetic.labels,
        fit=fit,
        validation=validation,
        test=dataset.test,
        preprocessing=preprocessing,
        classes=len(synthetic.classes),
        soft_labels=synthetic.soft_labels,
        balanced=balanced,
    )


def _read_table(settings: SearchSettings, space: Space) -> ReferenceTable | None:
    if settings.reference_kind != "table":
        if settings.reference_column != SCORE:
            raise ValueError(
                "--reference-column names a column of a CSV file, and --reference "
                f"{settings.reference} reads none: give --reference FILE.csv, or leave the column out"
            )
        return None
    path = Path(settings.reference)
    if not path.is_file():
        raise ValueError(
            f"unknown reference {settings.reference!r}: give 'real', 'none' or a CSV file; there is no file "
            "of that name"
        )
    return read_reference(path, space, settings.reference_column)

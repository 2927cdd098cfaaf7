"""The estimators of a search, each with the training that the settings ask for."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

import torch

from atom_nas import estimators
from atom_nas.estimators.base import Estimator, SearchData, configure
from atom_nas.estimators.confirm import ConfirmConfig, ConfirmEstimator
from atom_nas.estimators.proxy import even_batch
from atom_nas.estimators.real import RECIPE
from distill.training import TrainingConfig
from search_spaces import is_own

if TYPE_CHECKING:
    from atom_nas.settings import SearchSettings


@dataclass(frozen=True, kw_only=True)
class Trainings:
    """How each stage trains, None for one that there is not; why not in the precision asked for."""

    proxy: TrainingConfig
    reference: TrainingConfig | None
    confirm: TrainingConfig | None
    fallback: str | None


class Estimators(TypedDict):
    """What `atom_nas.search_plan.SearchPlan` says of them."""

    proxy: Estimator
    others: tuple[Estimator, ...]
    reference: Estimator | None
    confirm: ConfirmEstimator | None


def settle_trainings(
    settings: "SearchSettings", images: int, dataset: str, device: torch.device
) -> Trainings:
    """The trainings in a precision that the device has.

    Args:
        images: of the synthetic set, among which the proxy's batches are as even as can be.
        dataset: the name of the real one.
    Raises:
        ValueError: an option is unknown or has a wrong value.
    """
    reference = confirm = None
    if settings.reference_kind == "real":
        options = {**RECIPE, **settings.reference_training}
        reference = _training(options, settings.reference_epochs, dataset)
    if settings.confirm:
        options = {**RECIPE, **settings.confirm_training}
        confirm = _training(options, settings.confirm_epochs, dataset)
    proxy, reason = _as_proxy(settings, images, dataset).settled(device)
    settled = [each.settled(device) if each else (None, None) for each in (reference, confirm)]
    reasons = [why for why in (reason, *(why for _, why in settled)) if why]
    return Trainings(
        proxy=proxy,
        reference=settled[0][0],
        confirm=settled[1][0],
        fallback=next(iter(reasons), None),
    )


def make_estimators(settings: "SearchSettings", trainings: Trainings, data: SearchData) -> Estimators:
    """The estimators, with the images that they look at.

    Raises:
        ValueError: an option of theirs has a wrong value.
    """
    validated = {"validation_images": settings.validation_images}
    as_proxy = {"training": trainings.proxy, **validated}
    reference = confirm = None
    if trainings.reference:
        options = {"train_images": settings.reference_images, **validated}
        reference = estimators.load("real").estimator(data, training=trainings.reference, **options)
    if trainings.confirm:
        confirm = ConfirmEstimator(
            data, ConfirmConfig(training=trainings.confirm, train_images=settings.confirm_images)
        )
    return Estimators(
        proxy=estimators.load("proxy").estimator(data, **as_proxy),
        others=tuple(
            _beside(name, data, as_proxy if name in estimators.TRAINED_BESIDE else settings.training_free)
            for name in settings.estimators
        ),
        reference=reference,
        confirm=confirm,
    )


def _beside(name: str, data: SearchData, options: Mapping[str, Any]) -> Estimator:
    made: Estimator
    if is_own(name):
        made = importlib.import_module("atom_nas.estimators.own").estimator(name, data, **options)
    else:
        made = estimators.load(name).estimator(data, **options)
    return made


def _as_proxy(settings: "SearchSettings", images: int, dataset: str) -> TrainingConfig:
    training = _training(settings.training, settings.epochs, dataset)
    return replace(training, batch_size=even_batch(images, training.batch_size))


def _training(options: Mapping[str, Any], epochs: int, dataset: str) -> TrainingConfig:
    return configure(TrainingConfig, "training", {"epochs": epochs, **options}).suited_to(dataset)

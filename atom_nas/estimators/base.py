"""What an estimator is, the images it may use, and the one routine that trains and scores.

Letters: N images, C channels, H x W pixels.
"""

import hashlib
import warnings
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from atom_nas.config import construct
from atom_nas.estimators.speed import speed_scores
from atom_nas.names import choose
from distill.data import Split, stratified_subset
from distill.leg import Clock, Leg, keep, take_up
from distill.preprocessing import Preprocessing
from distill.seeding import stream
from distill.training import TrainingConfig, TrainingRecord, evaluate, train

# Part of every estimator's settings, hence of the keys of cached references: raise it whenever a change
# of this file, or of the training loop, alters scores.
SCORING_VERSION = 3

Config = TypeVar("Config")


class Estimator(Protocol):
    """Scores one network. Instances travel to worker processes, their tensors by shared memory."""

    @property
    def name(self) -> str:
        """Its name in `ESTIMATORS`."""
        ...

    def settings(self) -> dict[str, Any]:
        """Everything that determines a score besides network and seed, as JSON values; a cache key."""
        ...

    def score(
        self, network: nn.Module, *, seed: int, device: torch.device, leg: Leg | None = None
    ) -> dict[str, float]:
        """Train the network in place and return its scores.

        Args:
            leg: the part of the training to do now; None: all of it.
        Raises:
            FloatingPointError: the training loss is not finite.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class SearchData:
    """All images of a search: the synthetic set and the real splits it was distilled from.

    Attributes:
        synthetic_images: float32 (N, C, H, W), model space.
        synthetic_labels: int64 (N,).
        soft_labels: float32 (N, K), what networks are trained to say of them; None: the labels.
        fit: the real training images without the validation images.
        validation: real images held out of distillation and training, for scoring.
        test: the real test images; read by reference scores only.
        preprocessing: from the pixels of the three real splits to model space.
        classes: how many there are.
        balanced: accuracies are balanced: every class counts as much, however few images it has.
    """

    synthetic_images: Tensor
    synthetic_labels: Tensor
    fit: Split
    validation: Split
    test: Split
    preprocessing: Preprocessing
    classes: int
    soft_labels: Tensor | None = None
    balanced: bool = False

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.synthetic_images.shape[1:]
        return int(channels), int(height), int(width)


def train_and_score(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    training: TrainingConfig,
    validation: Split,
    preprocessing: Preprocessing,
    seed: int,
    device: torch.device,
    leg: Leg | None = None,
    images_an_epoch: int | None = None,
    balanced: bool = False,
) -> dict[str, float]:
    """Train on `images`, then read everything that is free: training losses, validation accuracy and loss.

    Args:
        network: freshly initialised; trained in place and left on `device`.
        images: float32 model space, or uint8 pixels; (N, C, H, W).
        labels: int64 (N,), or probabilities, float32 (N, K).
        training: how to train.
        validation: real images to score on.
        preprocessing: from pixels to model space.
        seed: of batches and augmentation.
        device: where to compute.
        leg: the part of the training to do now; None: all of it.
        images_an_epoch: look at so many of the images in an epoch; None: at all.
        balanced: the accuracy is the mean over classes, not images.
    Raises:
        FloatingPointError: the training loss is not finite.
    """
    clock = Clock(leg) if leg else None
    record = train(
        network,
        images,
        labels,
        config=training,
        seed=seed,
        device=device,
        preprocessing=preprocessing if images.dtype == torch.uint8 else None,
        until=leg.until if leg else None,
        after=take_up(leg, network) if leg else None,
        images_an_epoch=images_an_epoch,
    )
    if leg and clock:
        keep(leg, network, record, clock.spent())
    return read_scores(
        network, record, validation=validation, preprocessing=preprocessing, device=device, balanced=balanced
    )


def read_scores(
    network: nn.Module,
    record: TrainingRecord,
    *,
    validation: Split,
    preprocessing: Preprocessing,
    device: torch.device,
    balanced: bool,
) -> dict[str, float]:
    """What is free once a network is trained: its training losses, validation accuracy and loss."""
    held_out = evaluate(
        network, validation.images, validation.labels, device=device, preprocessing=preprocessing
    )
    return {
        "validation_accuracy": held_out.accuracy_by(balanced=balanced),
        "validation_loss": held_out.loss,
        "final_training_loss": record.final_loss,
        "summed_training_loss": record.summed_loss,
        **speed_scores(record.epoch_losses),
    }


def subset(split: Split, classes: int, count: int | None, *key: int | str) -> Split:
    """`count` images with equal shares per class, drawn by the stream `key`; the split itself for None.

    Warns where there are not so many.

    Raises:
        ValueError: if `count` is below the number of classes.
    """
    if count is None or count == len(split):
        return split
    if count > len(split):
        there = f"{count:,} images were asked for, and there are {len(split):,}"
        warnings.warn(f"{there}: all are used", stacklevel=2)
        return split
    if count < classes:
        raise ValueError(f"a subset of {count} images cannot hold {classes} classes: give at least {classes}")
    return split.take(stratified_subset(split, classes, count, stream(*key)))


def validation_subset(data: "SearchData", count: int | None, seed: int = 0) -> Split:
    """The validation images that the proxy, and whatever is compared with it, scores on."""
    return subset(data.validation, data.classes, count, seed, "validation subset")


def metric_settings(data: "SearchData") -> dict[str, Any]:
    """What settings say of how accuracies count; nothing of the share of images, which was there first."""
    return {"balanced": True} if data.balanced else {}


def fingerprint(*tensors: Tensor) -> str:
    """`sha256:` and the digest of the tensors' shapes, types and bytes."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
    return f"sha256:{digest.hexdigest()}"


def preprocessing_fingerprint(preprocessing: Preprocessing) -> str:
    """The digest of the statistics: normalisation, and whitening if there is any."""
    whitening = preprocessing.whitening
    extra = () if whitening is None else (whitening.mean, whitening.matrix)
    return fingerprint(preprocessing.mean, preprocessing.std, *extra)


def configure(config: type[Config], kind: str, options: dict[str, Any]) -> Config:
    """Make a config dataclass of the given type from options by name, their values converted to its types.

    Raises:
        ValueError: on an option the config does not have, with the nearest matches, or a wrong value.
    """
    known = [field.name for field in fields(config)]  # type: ignore[arg-type]
    for name in options:
        choose(f"{kind} option", name, known)
    return construct(config, options)

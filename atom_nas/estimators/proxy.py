"""The cheap ruler: train on the synthetic set, score on real validation images."""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from atom_nas.estimators.base import (
    SCORING_VERSION,
    SearchData,
    configure,
    fingerprint,
    metric_settings,
    preprocessing_fingerprint,
    train_and_score,
    validation_subset,
)
from distill.leg import Leg
from distill.training import TrainingConfig

EPOCHS = 100


@dataclass(frozen=True, kw_only=True)
class ProxyConfig:
    """How the proxy trains and what it scores on.

    Attributes:
        training: of every network on the synthetic set.
        validation_images: score on a seeded subset of this many validation images, with equal shares per
            class, to bound the cost; None: on all.
        subset_seed: of that subset.
    """

    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(epochs=EPOCHS))
    validation_images: int | None = None
    subset_seed: int = 0


def even_batch(images: int, batch_size: int) -> int:
    """The batch size, or a smaller one of as many steps an epoch: 25 instead of 32 for 100 images.

    A last batch of a few images, which small sets have as often as the others, takes a step as long as
    theirs in a direction that says little (docs/convnets.md).
    """
    steps = -(-images // batch_size)
    return -(-images // steps) if steps > 1 else batch_size


class ProxyEstimator:
    """Trains on the synthetic images (model space), scores on the real validation split."""

    name = "proxy"

    def __init__(self, data: SearchData, config: ProxyConfig) -> None:
        """Take the synthetic set and the validation images out of `data`.

        Raises:
            ValueError: if `config.validation_images` is below the number of classes.
        """
        self.config = config
        self._images = data.synthetic_images
        self._labels = data.synthetic_labels if data.soft_labels is None else data.soft_labels
        self._images_an_epoch: int | None = None
        self._preprocessing = data.preprocessing
        self._balanced, self._metric = data.balanced, metric_settings(data)
        self._validation = validation_subset(data, config.validation_images, config.subset_seed)

    def settings(self) -> dict[str, Any]:
        """The training config, and digests of all images that bear on a score."""
        return {
            "estimator": self.name,
            "version": SCORING_VERSION,
            "training": asdict(self.config.training),
            "training_images": len(self._labels),
            "training_fingerprint": fingerprint(self._images, self._labels),
            "validation_images": len(self._validation),
            "validation_fingerprint": fingerprint(self._validation.images, self._validation.labels),
            "preprocessing": preprocessing_fingerprint(self._preprocessing),
            **self._metric,
        }

    def score(
        self, network: nn.Module, *, seed: int, device: torch.device, leg: Leg | None = None
    ) -> dict[str, float]:
        """See `train_and_score`."""
        return train_and_score(
            network,
            self._images,
            self._labels,
            training=self.config.training,
            validation=self._validation,
            preprocessing=self._preprocessing,
            seed=seed,
            device=device,
            leg=leg,
            images_an_epoch=self._images_an_epoch,
            balanced=self._balanced,
        )


def estimator(data: SearchData, **options: Any) -> ProxyEstimator:
    """The estimator with a `ProxyConfig` of the given options."""
    return ProxyEstimator(data, configure(ProxyConfig, "proxy", options))

"""A real dataset as one frozen, validated value: uint8 images, labels, class names.

Letters: N images, C channels (1 or 3), H x W pixels.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from distill.seeding import stream


@dataclass(frozen=True)
class Split:
    """Images and labels of one split.

    Attributes:
        images: uint8 (N, C, H, W), 0 to 255.
        labels: int64 (N,).
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise ValueError(
                f"images must be uint8 (N, C, H, W), not {self.images.dtype} {tuple(self.images.shape)}"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"labels must be int64 ({len(self.images)},), not {tuple(self.labels.shape)}")

    def __repr__(self) -> str:
        return f"Split(images {tuple(self.images.shape)})"

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> "Split":
        """The images at `indices` (int64), in that order."""
        return Split(self.images[indices], self.labels[indices])

    def class_indices(self, classes: int) -> list[Tensor]:
        """For each class 0..classes-1 the int64 positions of its images, in order."""
        return [torch.nonzero(self.labels == k).flatten() for k in range(classes)]


def stratified_subset(split: Split, classes: int, count: int, generator: torch.Generator) -> Tensor:
    """Positions of about `count` images drawn with equal shares per class, sorted.

    Every class gives floor(count / classes) images and the first classes one more until `count` is
    reached; a class with fewer images than its share gives all it has.
    """
    shares = [count // classes + (k < count % classes) for k in range(classes)]
    chosen = [
        positions[torch.randperm(len(positions), generator=generator)[:share]]
        for positions, share in zip(split.class_indices(classes), shares, strict=True)
    ]
    return torch.cat(chosen).sort().values


@dataclass(frozen=True)
class RealDataset:
    """A classification dataset: a training split, a test split, the names of its classes.

    Attributes:
        grey_bits: that greys of the files have, where some have more than 8.
    Raises:
        ValueError: on fewer than two classes, splits of different shape, labels out of range, or a class
            without training images.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    grey_bits: int = 8

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise ValueError(f"{self.name} has {len(self.classes)} class; at least 2 are needed")
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise ValueError(
                f"{self.name}: training images are {tuple(self.train.images.shape[1:])}, "
                f"test images {tuple(self.test.images.shape[1:])}"
            )
        for split in (self.train, self.test):
            if len(split) and not 0 <= int(split.labels.min()) <= int(split.labels.max()) < len(self.classes):
                raise ValueError(f"{self.name}: labels must lie in 0..{len(self.classes) - 1}")
        self._require_every_class()

    def _require_every_class(self) -> None:
        for title, split in (("training", self.train), ("test", self.test)):
            counts = torch.bincount(split.labels, minlength=len(self.classes))
            missing = [self.classes[k] for k in torch.nonzero(counts == 0).flatten().tolist()]
            if missing:
                raise ValueError(
                    f"{self.name}: no {title} images of class {', '.join(missing[:5])}; every class needs at "
                    "least one in each split: add some, or leave the class out"
                )

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.image_shape))
        counts = f"{len(self.train)} training and {len(self.test)} test images"
        return f"RealDataset({self.name}, {len(self.classes)} classes, {counts} {shape})"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.images.shape[1:]
        return int(channels), int(height), int(width)

    @cached_property
    def fingerprint(self) -> str:
        """`sha256:` and the digest of class names, images and labels: the same data, the same string."""
        digest = hashlib.sha256("\x1f".join(self.classes).encode())
        for split in (self.train, self.test):
            digest.update(repr(tuple(split.images.shape)).encode())
            for tensor in (split.images, split.labels):
                digest.update(np.ascontiguousarray(tensor.numpy()).data)
        return f"sha256:{digest.hexdigest()}"

    def carve_validation(self, fraction: float, seed: int) -> tuple[Split, Split]:
        """Split the training images, class by class, into (fit, validation).

        Args:
            fraction: share of each class that goes to validation, in [0, 1). At least one image of every
                class goes there and at least one stays; 0 carves nothing and returns an empty validation.
            seed: of the draw; the same seed gives the same split.
        Raises:
            ValueError: if the fraction is out of range, or a class has a single training image.
        """
        if not 0.0 <= fraction < 1.0:
            raise ValueError(f"the validation fraction must lie in [0, 1), not {fraction}")
        fit, validation = [], []
        for k, positions in enumerate(self.train.class_indices(len(self.classes))):
            count = self._validation_count(k, len(positions), fraction)
            order = positions[torch.randperm(len(positions), generator=stream(seed, "validation", k))]
            validation.append(order[:count])
            fit.append(order[count:])
        return self.train.take(_sorted(fit)), self.train.take(_sorted(validation))

    def _validation_count(self, klass: int, size: int, fraction: float) -> int:
        if fraction == 0.0:
            return 0
        if size < 2:
            raise ValueError(
                f"{self.name}: class {self.classes[klass]} has a single training image, so none can be "
                "held out for validation; add images or set validation_fraction=0"
            )
        return min(max(1, round(size * fraction)), size - 1)


def _sorted(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)).sort().values

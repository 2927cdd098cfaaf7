"""Datasets that torchvision downloads and checks."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision import datasets

from distill.data import RealDataset, Split


def read(name: str, data_dir: Path, image_size: int | None) -> RealDataset:  # noqa: ARG001
    """Read one of torchvision's datasets from `data_dir`, downloading it there on first use."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        train, test = _open(name, data_dir, train=True), _open(name, data_dir, train=False)
    except (OSError, RuntimeError) as error:
        reason = re.sub(r"\s+", " ", str(error))
        raise ValueError(
            f"could not get {name} ({reason}); place its files in {data_dir}, or name their folder with "
            "--data-dir, or check the network"
        ) from error
    return RealDataset(name, _class_names(name, train), _split(train), _split(test))


def _open(name: str, root: Path, *, train: bool) -> Any:
    """torchvision's object, its integrity checked, downloaded if it is not there."""
    if name == "svhn":
        return datasets.SVHN(root, split="train" if train else "test", download=True)
    kinds = {
        "cifar10": datasets.CIFAR10,
        "cifar100": datasets.CIFAR100,
        "mnist": datasets.MNIST,
        "fashionmnist": datasets.FashionMNIST,
    }
    return kinds[name](root, train=train, download=True)


def _split(source: Any) -> Split:
    """CIFAR keeps (N, H, W, C), SVHN (N, C, H, W), MNIST (N, H, W)."""
    images = np.asarray(source.data)
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[-1] == 3:
        images = images.transpose(0, 3, 1, 2)
    labels = source.labels if hasattr(source, "labels") else source.targets
    return Split(
        torch.from_numpy(np.ascontiguousarray(images)),
        torch.as_tensor(labels, dtype=torch.int64),
    )


def _class_names(name: str, source: Any) -> tuple[str, ...]:
    if name == "svhn":
        return tuple(str(digit) for digit in range(10))
    return tuple(str(label) for label in source.classes)

"""scikit-learn's digits: 1,797 grey 8x8 images, the dataset that needs no download."""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from distill.data import RealDataset, Split

_TEST_IMAGES = 450


def read(name: str, data_dir: Path, image_size: int | None) -> RealDataset:  # noqa: ARG001
    """1,347 training and 450 test images, split once and for all, stratified by digit."""
    bunch = load_digits()
    pixels = np.rint(bunch.images * (255.0 / 16.0)).astype(np.uint8)[:, None]
    train, test = train_test_split(
        np.arange(len(pixels)), test_size=_TEST_IMAGES, stratify=bunch.target, random_state=0
    )
    images, labels = torch.from_numpy(pixels), torch.from_numpy(bunch.target.astype(np.int64))
    whole = Split(images, labels)
    return RealDataset(
        name,
        tuple(str(digit) for digit in range(10)),
        whole.take(torch.from_numpy(np.sort(train))),
        whole.take(torch.from_numpy(np.sort(test))),
    )

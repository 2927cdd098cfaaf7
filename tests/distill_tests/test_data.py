"""Splits and datasets as values: what they refuse, and how validation is carved."""

import pytest
import torch

from distill.data import RealDataset, Split, stratified_subset
from distill.seeding import stream


def split(counts: list[int], seed: int = 0) -> Split:
    labels = torch.cat([torch.full((n,), k) for k, n in enumerate(counts)])
    images = torch.randint(0, 256, (len(labels), 1, 4, 4), generator=stream(seed), dtype=torch.uint8)
    return Split(images, labels)


def dataset(counts: list[int], test: list[int] | None = None) -> RealDataset:
    names = tuple(f"class-{k}" for k in range(len(counts)))
    return RealDataset("toy", names, split(counts), split(test or [2] * len(counts), seed=1))


def test_validation_is_stratified_disjoint_and_seeded():
    data = dataset([20, 10, 3])
    fit, validation = data.carve_validation(0.2, seed=0)
    assert torch.bincount(validation.labels).tolist() == [4, 2, 1]
    assert len(fit) + len(validation) == len(data.train)
    rows = {bytes(image.flatten().tolist()) for image in data.train.images}
    parts = [bytes(image.flatten().tolist()) for part in (fit, validation) for image in part.images]
    assert sorted(parts) == sorted(rows)
    again, other = data.carve_validation(0.2, seed=0)[1], data.carve_validation(0.2, seed=1)[1]
    assert torch.equal(again.images, validation.images)
    assert not torch.equal(other.images, validation.images)


def test_validation_leaves_one_image_in_every_class_and_can_be_left_out():
    fit, validation = dataset([2, 2]).carve_validation(0.9, seed=0)
    assert torch.bincount(fit.labels).tolist() == torch.bincount(validation.labels).tolist() == [1, 1]
    fit, validation = dataset([2, 2]).carve_validation(0.0, seed=0)
    assert (len(fit), len(validation)) == (4, 0)


def test_validation_refuses_what_cannot_be_split():
    with pytest.raises(ValueError, match="class-1 has a single"):
        dataset([5, 1]).carve_validation(0.1, seed=0)
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        dataset([5, 5]).carve_validation(1.0, seed=0)


def test_fingerprint_follows_the_content():
    assert dataset([3, 3]).fingerprint == dataset([3, 3]).fingerprint
    changed = dataset([3, 3])
    changed.train.images[0, 0, 0, 0] ^= 1
    renamed = RealDataset("toy", ("a", "b"), dataset([3, 3]).train, dataset([3, 3]).test)
    assert len({dataset([3, 3]).fingerprint, changed.fingerprint, renamed.fingerprint}) == 3


def test_impossible_datasets_are_refused():
    one, two = split([3]), split([3, 3])
    with pytest.raises(ValueError, match="at least 2"):
        RealDataset("toy", ("a",), one, one)
    with pytest.raises(ValueError, match="no test images of class b"):
        RealDataset("toy", ("a", "b"), two, one)
    with pytest.raises(ValueError, match="no training images of class c"):
        RealDataset("toy", ("a", "b", "c"), two, two)
    with pytest.raises(ValueError, match="must lie in"):
        RealDataset("toy", ("a", "b"), split([1, 1, 1]), two)
    with pytest.raises(ValueError, match="uint8"):
        Split(two.images.float(), two.labels)


def test_stratified_subset_has_equal_shares():
    data = split([10, 10, 2])
    chosen = data.labels[stratified_subset(data, 3, 10, stream(0))]
    assert torch.bincount(chosen).tolist() == [4, 3, 2]


def test_text_forms_fit_a_line():
    data = dataset([3, 3])
    assert repr(data) == "RealDataset(toy, 2 classes, 6 training and 4 test images 1x4x4)"
    assert repr(data.train) == "Split(images (6, 1, 4, 4))"


def test_labels_are_part_of_the_fingerprint():
    relabelled, tested = dataset([3, 3]), dataset([3, 3])
    relabelled.train.labels[0] = 1
    tested.test.labels[0] = 1
    assert len({data.fingerprint for data in (dataset([3, 3]), relabelled, tested)}) == 3

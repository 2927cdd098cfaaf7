"""The user's own images: one folder a class."""

from pathlib import Path

import numpy as np
import torch

from distill.data import RealDataset, Split
from distill.seeding import stream
from distill.sources.images import common_size, decode, image_files

_TEST_FRACTION = 0.2
Listing = list[tuple[Path, int]]  # image files with their class numbers


def read(name: str, data_dir: Path, image_size: int | None) -> RealDataset:  # noqa: ARG001
    """Read `folder:PATH`.

    PATH/train/CLASS/* with PATH/test/CLASS/* (or PATH/val/CLASS/* where there is no test/); or PATH/CLASS/*,
    or a train/ alone, from which a fifth of each class is held out as the test split, always the same.
    """
    root = Path(name.partition(":")[2]).expanduser()
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}; folder:PATH needs PATH/train/CLASS/* or PATH/CLASS/*")
    training_root = root / "train" if (root / "train").is_dir() else root
    classes = _class_names(training_root)
    training = _listing(training_root, classes)
    test_root = _test_folder(root) if training_root != root else None
    if test_root:
        _refuse_strangers(test_root, classes)
        test = _listing(test_root, classes)
    else:
        training, test = _hold_out(training, classes)
    return assemble(name, classes, training, test, image_size)


def assemble(
    name: str, classes: tuple[str, ...], training: Listing, test: Listing, image_size: int | None
) -> RealDataset:
    """Decode both listings to one size and one number of channels."""
    paths = [path for path, _ in (*training, *test)]
    images = torch.from_numpy(decode(paths, image_size or common_size(paths)))
    labels = torch.from_numpy(np.array([label for _, label in (*training, *test)], dtype=np.int64))
    cut = len(training)
    return RealDataset(name, classes, Split(images[:cut], labels[:cut]), Split(images[cut:], labels[cut:]))


def _test_folder(root: Path) -> Path | None:
    return next((root / name for name in ("test", "val") if (root / name).is_dir()), None)


def _class_names(root: Path) -> tuple[str, ...]:
    """Sub-folders that hold images, sorted by name; empty ones are no classes."""
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    names = tuple(path.name for path in folders if image_files(path))
    if len(names) < 2:
        found = f"only the class {names[0]!r}" if names else "no class folder with images"
        raise ValueError(f"{root} holds {found}; classification needs at least two folders CLASS/*.png")
    return names


def _refuse_strangers(test_root: Path, classes: tuple[str, ...]) -> None:
    strangers = sorted(set(_class_names(test_root)) - set(classes))
    if strangers:
        raise ValueError(f"{test_root} has classes without training images: {', '.join(strangers[:5])}")


def _listing(root: Path, classes: tuple[str, ...]) -> Listing:
    return [(path, k) for k, name in enumerate(classes) for path in image_files(root / name)]


def _hold_out(listing: Listing, classes: tuple[str, ...]) -> tuple[Listing, Listing]:
    training, test = [], []
    for k, name in enumerate(classes):
        mine = [entry for entry in listing if entry[1] == k]
        if len(mine) < 2:
            raise ValueError(f"class {name} has a single image, so no test image can be held out; add more")
        count = min(max(1, round(len(mine) * _TEST_FRACTION)), len(mine) - 1)
        order = torch.randperm(len(mine), generator=stream("test split", name)).tolist()
        held = set(order[:count])
        test += [entry for i, entry in enumerate(mine) if i in held]
        training += [entry for i, entry in enumerate(mine) if i not in held]
    return training, test

"""The user's own images: one folder a class."""

import logging
from pathlib import Path

import numpy as np
import torch

from distill.data import RealDataset, Split
from distill.files import printable
from distill.seeding import stream
from distill.sources import folder_path
from distill.sources.decoded import kept
from distill.sources.images import common_size, decode, grey_bits, image_files

_log = logging.getLogger(__name__)
_NAMED = 5
_TEST_FRACTION = 0.2
# What the folder of a split may be called, in any case.
_TRAINING, _TEST, _VALIDATION = ("train", "training"), ("test", "testing"), ("val", "valid", "validation")
_LAYOUTS = "PATH/train/CLASS/* with PATH/test/CLASS/* or PATH/val/CLASS/*, or PATH/CLASS/* alone"
Listing = list[tuple[Path, int]]  # image files with their class numbers


def read(name: str, data_dir: Path, image_size: int | None) -> RealDataset:  # noqa: ARG001
    """Read `folder:PATH`.

    PATH/train/CLASS/* with PATH/test/CLASS/* (or PATH/val/CLASS/* where there is no test/); or PATH/CLASS/*,
    or a train/ alone, from which a fifth of each class is held out as the test split, always the same.
    Splits may also be called training, testing, valid or validation, in capitals or not.
    """
    root = folder_path(name)
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}; folder:PATH needs PATH/train/CLASS/* or PATH/CLASS/*")
    training_root = _split_folder(root, _TRAINING)
    classes = _class_names(training_root or root)
    training = _listing(training_root or root, classes)
    _tell_of_empty(training_root or root, classes)
    if training_root:
        _tell_of_others(training_root)
    else:
        _refuse_splits_as_classes(root, classes)
    test_root = training_root and (_split_folder(root, _TEST) or _split_folder(root, _VALIDATION))
    if test_root:
        _refuse_other_classes(test_root, classes)
        test = _listing(test_root, classes)
    else:
        training, test = _hold_out(training, classes)
    return assemble(name, classes, training, test, image_size)


def glance(name: str) -> tuple[int | None, int]:
    """The side of the first image, None if it is not square, and the number of classes; nothing is decoded.

    Raises:
        ValueError: as `read`, where the folders are not as it wants them.
    """
    root = folder_path(name)
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}; folder:PATH needs PATH/train/CLASS/* or PATH/CLASS/*")
    training_root = _split_folder(root, _TRAINING) or root
    classes = _class_names(training_root)
    try:
        return common_size(image_files(training_root / classes[0])[:1]), len(classes)
    except ValueError:  # not square, or damaged: whoever reads all images says so
        return None, len(classes)


def assemble(
    name: str, classes: tuple[str, ...], training: Listing, test: Listing, image_size: int | None
) -> RealDataset:
    """Decode both listings to one size and one number of channels."""
    paths = [path for path, _ in (*training, *test)]
    bits = int(kept(paths, "bits", lambda: np.full((len(paths), 1, 1, 1), grey_bits(paths), np.uint8)).max())
    images = torch.from_numpy(
        kept(paths, f"side {image_size}", lambda: decode(paths, image_size or common_size(paths), bits))
    )
    labels = torch.from_numpy(np.array([label for _, label in (*training, *test)], dtype=np.int64))
    cut = len(training)
    splits = Split(images[:cut], labels[:cut]), Split(images[cut:], labels[cut:])
    return RealDataset(name, classes, *splits, grey_bits=bits)


def _tell_of_empty(root: Path, classes: tuple[str, ...]) -> None:
    """Say which folders are no classes, since nothing in them is an image."""
    folders = {path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")}
    empty = sorted(map(printable, folders - set(classes)))
    if empty:
        _log.info("left out, being without images: %s", _some(empty))


def _tell_of_others(training_root: Path) -> None:
    """Say which folders beside that of the training split have images which nobody will see."""
    splits = (*_TRAINING, *_TEST, *_VALIDATION)
    beside = sorted(path for path in training_root.parent.iterdir() if path.is_dir())
    left = [path.name for path in beside if path.name.lower() not in splits and not path.name.startswith(".")]
    seen = [printable(name) for name in left if image_files(training_root.parent / name)]
    if seen:
        _log.warning(
            "left out: %s, since %s/ beside it is taken for the training split; rename that if it is a class",
            _some(seen),
            training_root.name,
        )


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:_NAMED])) + ", ..." * (len(names) > _NAMED)


def _split_folder(root: Path, names: tuple[str, ...]) -> Path | None:
    """The one folder in `root` with one of these names, in capitals or not."""
    found = sorted(path for path in root.iterdir() if path.is_dir() and path.name.lower() in names)
    if len(found) > 1:
        listed = " and ".join(path.name for path in found)
        raise ValueError(f"{root} holds {listed}, which could each be the {names[0]} split; keep one of them")
    return found[0] if found else None


def _refuse_splits_as_classes(root: Path, classes: tuple[str, ...]) -> None:
    """Without this the test images of a layout that is nearly right would be trained on as a class."""
    splits = [name for name in classes if name.lower() in (*_TEST, *_VALIDATION)]
    if splits:
        raise ValueError(
            f"{root} holds {splits[0]}/, the name of a split, but no train/: wanted is {_LAYOUTS}; "
            "if it is a class, rename it"
        )


def _filled_folders(root: Path) -> tuple[str, ...]:
    """Names of the sub-folders that hold images, sorted; empty ones are no classes.

    Raises:
        ValueError: naming a folder whose name is not UTF-8, for it could not stand in a card.
    """
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    names = tuple(path.name for path in folders if image_files(path))
    strange = [name for name in names if printable(name) != name]
    if strange:
        raise ValueError(
            f"the class folder {root / printable(strange[0])} has a name that is not UTF-8; rename it"
        )
    _refuse_one_twice([root / name for name in names])
    return names


def _refuse_one_twice(folders: list[Path]) -> None:
    """The same images would be of two classes, some of them for training and for testing."""
    known: dict[Path, Path] = {}
    for folder in folders:
        first = known.setdefault(folder.resolve(), folder)
        if first != folder:
            raise ValueError(f"{folder} and {first} are one folder by two names: remove the link of them")


def _class_names(root: Path) -> tuple[str, ...]:
    names = _filled_folders(root)
    if len(names) < 2:
        found = f"only the class {names[0]!r}" if names else "no class folder with images"
        split = root.name.lower() in _TRAINING
        hint = f"; if {root.name}/ is itself a class and no split, rename it" if split else ""
        raise ValueError(
            f"{root} holds {found}; classification needs at least two folders CLASS/*.png ({_LAYOUTS}){hint}"
        )
    return names


def _refuse_other_classes(test_root: Path, classes: tuple[str, ...]) -> None:
    found = _filled_folders(test_root)
    strangers = sorted(set(found) - set(classes))
    if strangers:
        raise ValueError(f"{test_root} has classes without training images: {', '.join(strangers[:5])}")
    missing = [name for name in classes if name not in found]
    if missing:
        raise ValueError(
            f"{test_root} has no images of class {', '.join(missing[:5])}: add some, or remove "
            f"{test_root.name}/, and a fifth of the training images is held out for testing"
        )


def _listing(root: Path, classes: tuple[str, ...]) -> Listing:
    return [(path, k) for k, name in enumerate(classes) for path in image_files(root / name)]


def _hold_out(listing: Listing, classes: tuple[str, ...]) -> tuple[Listing, Listing]:
    training, test = [], []
    for k, name in enumerate(classes):
        mine = [entry for entry in listing if entry[1] == k]
        if len(mine) < 2:
            raise ValueError(
                f"class {name!r} has a single image, so no test image can be held out: add more, move its "
                "folder elsewhere, or give all classes test images of their own (train/ and test/)"
            )
        count = min(max(1, round(len(mine) * _TEST_FRACTION)), len(mine) - 1)
        order = torch.randperm(len(mine), generator=stream("test split", name)).tolist()
        held = set(order[:count])
        test += [entry for i, entry in enumerate(mine) if i in held]
        training += [entry for i, entry in enumerate(mine) if i not in held]
    return training, test

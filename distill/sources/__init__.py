"""Where real data comes from: one file a kind of source, one line here a dataset."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from distill.files import cache_folder, printable

if TYPE_CHECKING:
    from distill.data import RealDataset

# name -> (module of this folder, one-line summary). A name ending in ":" takes an argument.
DATASETS: dict[str, tuple[str, str]] = {
    "digits": ("digits", "1,797 grey 8x8 digits, bundled with scikit-learn: no download"),
    "cifar10": ("vision", "50,000 + 10,000 colour 32x32 images, 10 classes"),
    "cifar100": ("vision", "50,000 + 10,000 colour 32x32 images, 100 classes"),
    "mnist": ("vision", "60,000 + 10,000 grey 28x28 digits"),
    "fashionmnist": ("vision", "60,000 + 10,000 grey 28x28 garments"),
    "svhn": ("vision", "73,257 + 26,032 colour 32x32 house-number digits"),
    "tinyimagenet": ("tinyimagenet", "100,000 + 10,000 colour 64x64 images, 200 classes; unpacked by you"),
    "folder:PATH": ("folder", "your own images: PATH/train/CLASS/* with test/ or val/, or PATH/CLASS/*"),
}
# Whitened by default, as in the papers of this family; everything else is only normalised.
ZCA_DATASETS = frozenset({"cifar10", "cifar100"})
# A mirrored digit is another sign: DSA leaves flips out for these (Zhao and Bilen 2021).
DIGIT_DATASETS = frozenset({"digits", "mnist", "svhn"})


def suited_augmentation(strategy: str, dataset: str) -> str:
    """`dsa` for a dataset: without flips where classes are digits; other strategies as they are."""
    digits = strategy == "dsa" and dataset in DIGIT_DATASETS
    return "color_crop_cutout_scale_rotate" if digits else strategy


def default_data_dir() -> Path:
    """Where downloads go: `datasets` in the cache folder."""
    return cache_folder() / "datasets"


def folder_path(name: str) -> Path:
    """The folder of `folder:PATH`; `~` is a home folder.

    Raises:
        ValueError: if there is no such home, or PATH is not UTF-8 and could not stand in a card.
    """
    path = name.partition(":")[2]
    if printable(path) != path:
        raise ValueError(f"the folder {printable(path)} has a name that is not UTF-8; rename it")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"there is no home folder for {path}; give the whole path") from None


def has_any_size(name: str) -> bool:
    """Whether a dataset's images may have any size, so that `image_size` is of use."""
    return name == "tinyimagenet" or name.partition(":")[0] == "folder"


def load_dataset(name: str, *, data_dir: Path | None = None, image_size: int | None = None) -> "RealDataset":
    """Load a dataset by name.

    Args:
        name: of `DATASETS`; `folder:PATH` for your own images.
        data_dir: where torchvision's files and `tiny-imagenet-200` are or go; the cache folder if None.
        image_size: side in pixels that images are resized and centre-cropped to; only for `folder:PATH`
            and `tinyimagenet`, whose files may have any size.
    Raises:
        ValueError: on an unknown name, missing or corrupt files, or data that cannot be classified.
    """
    kind, _, argument = name.partition(":")
    entry = DATASETS.get("folder:PATH" if kind == "folder" else name)
    if entry is None or (kind == "folder" and not argument):
        raise ValueError(f"unknown dataset {name!r}; allowed: {', '.join(DATASETS)}")
    if image_size is not None and not has_any_size(name):
        raise ValueError(f"{name} has images of one size; image_size is for folder:PATH and tinyimagenet")
    if image_size is not None and image_size < 4:
        raise ValueError(f"image_size must be at least 4 pixels, not {image_size}")
    module = importlib.import_module(f"distill.sources.{entry[0]}")
    dataset: RealDataset = module.read(name, data_dir or default_data_dir(), image_size)
    return dataset


def glance(name: str, image_size: int | None = None) -> tuple[int | None, int | None]:
    """The side that images of `folder:PATH` will have, and its number of classes, without decoding any image;
    None for what is unknown, and for every other dataset.

    Raises:
        ValueError: see `load_dataset`.
    """
    if not name.startswith("folder:"):
        return None, None
    folder = importlib.import_module("distill.sources.folder")
    side, classes = folder.glance(name)
    return image_size or side, classes

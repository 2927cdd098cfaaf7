"""TinyImageNet in its standard folder, `tiny-imagenet-200`; its validation images serve as the test split."""

from pathlib import Path

from distill.data import RealDataset
from distill.sources.folder import Listing, assemble
from distill.sources.images import image_files

_FOLDER = "tiny-imagenet-200"


def read(name: str, data_dir: Path, image_size: int | None) -> RealDataset:
    """Read train/WNID/images/* and val/images/* with val/val_annotations.txt."""
    root = data_dir / _FOLDER if (data_dir / _FOLDER).is_dir() else data_dir
    annotations = root / "val" / "val_annotations.txt"
    if not annotations.is_file() or not (root / "train").is_dir():
        raise ValueError(
            f"no {_FOLDER} in {data_dir}: unpack tiny-imagenet-200.zip there, or name its folder with "
            "--data-dir (train/ and val/val_annotations.txt are looked for)"
        )
    classes = tuple(sorted(path.name for path in (root / "train").iterdir() if path.is_dir()))
    training = [(path, k) for k, wnid in enumerate(classes) for path in image_files(root / "train" / wnid)]
    test = _annotated(annotations, {wnid: k for k, wnid in enumerate(classes)})
    return assemble(name, classes, training, test, image_size or 64)


def _annotated(annotations: Path, numbers: dict[str, int]) -> Listing:
    """Each line: file, wnid, then a bounding box, tab-separated."""
    listing: Listing = []
    for number, line in enumerate(annotations.read_text().splitlines(), start=1):
        parts = line.split()
        if len(parts) < 2 or parts[1] not in numbers:
            raise ValueError(f"{annotations} line {number} names no class of train/: {line[:60]!r}")
        listing.append((annotations.parent / "images" / parts[0], numbers[parts[1]]))
    return listing

"""The artifact: a folder with a synthetic set and everything needed to use it right.

    synthetic.safetensors   images float32 (N, C, H, W) in model space, as stored; labels int64 (N,);
                            soft_labels float32 (N*f^2, K), only if there are any (see `distill.labelling`)
    whitening.safetensors   mean (D,) and matrix (D, D) of the ZCA, only if the set was made with it
    card.json               what it is: dataset, classes, normalisation, method, settings, costs
    images.png              the stored images as pictures, a row a class
    log.jsonl               the losses; once a run has begun to replace the set, those of that run
    evaluations.jsonl       only if asked for: accuracies on the way, as above
    README.md               all of it for people, in the form of a Hugging Face dataset card

A stored image is what networks are trained on, unless the card has a factor f above 1: then it holds f x f
smaller ones (see `distill.formation`).

Nothing here is ever unpickled.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as deserialize
from safetensors.torch import save as serialize
from torch import Tensor
from torch.utils.data import TensorDataset

from distill.card import (
    FORMAT_VERSION,
    WITH_FACTOR,
    Card,
    PreprocessingCard,
    ShardCard,
    read_card,
    read_shard_card,
)
from distill.data import RealDataset, Split
from distill.files import open_regular, write_bytes, write_text
from distill.formation import decode
from distill.pictures import as_pictures, grid
from distill.preprocessing import Preprocessing, Whitening
from distill.readme import README, readme
from distill.sources import folder_path, has_any_size, load_dataset

IMAGES, WHITENING, PICTURE = "synthetic.safetensors", "whitening.safetensors", "images.png"
SOFT_LABELS = "soft_labels"
_log = logging.getLogger(__name__)
_INEXACT = 1e-3  # of the sum of probabilities
_ASYMMETRY = 1e-4  # of the largest entry: rounding leaves a thousandth of that
_LARGEST_HEADER = 64 * 2**20  # of a safetensors file


@dataclass(frozen=True)
class SyntheticSet:
    """A synthetic set with its preprocessing and card.

    Letters: N stored images, K classes, f the card's factor.

    Attributes:
        stored: float32 (N, C, H, W), in model space, as they are on disk.
        stored_labels: int64 (N,).
        images: float32 (N*f^2, C, H, W), in model space: feed them to a network as they are.
        labels: int64 (N*f^2,).
        classes: names; label k is `classes[k]`.
        preprocessing: brings real uint8 images into the same space (`preprocessing(images)`) and
            synthetic ones back to pixels (`preprocessing.pictures(images)`).
        card: the whole `card.json`.
        path: the folder.
        soft_labels: float32 (N*f^2, K), probabilities of the classes, of each of `images`; None: there are
            none.
        targets: what networks are trained to say of `images`: the soft labels, or else the labels.
    """

    stored: Tensor
    stored_labels: Tensor
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    card: dict[str, Any]
    path: Path
    soft_labels: Tensor | None = None

    @property
    def factor(self) -> int:
        """Each stored image holds factor x factor smaller ones."""
        return int(self.card.get("factor", 1))

    @cached_property
    def images(self) -> Tensor:
        return decode(self.stored, self.factor)

    @cached_property
    def labels(self) -> Tensor:
        return self.stored_labels.repeat_interleave(self.factor**2)

    @property
    def targets(self) -> Tensor:
        return self.labels if self.soft_labels is None else self.soft_labels

    def __repr__(self) -> str:
        shape, card = (len(self), *self.stored.shape[1:]), self.card
        soft = "" if self.soft_labels is None else ", soft labels"
        return (
            f"SyntheticSet({card['method']} of {card['dataset']['name']}, images {shape}{soft}, {self.path})"
        )

    def __len__(self) -> int:
        return len(self.stored_labels) * self.factor**2

    def dataset(self) -> TensorDataset:
        """A torch dataset of (image in model space, label, or its probabilities where labels are soft)."""
        return TensorDataset(self.images, self.targets)

    def real_dataset(self, *, data_dir: Path | None = None, name: str | None = None) -> RealDataset:
        """The real dataset that the set was distilled from, checked to be the very same.

        Args:
            data_dir: see `load_dataset`.
            name: of the dataset now, e.g. `folder:PATH` where it has moved to; the card's name if None.

        Raises:
            ValueError: if it cannot be loaded or its content differs.
        """
        record, where = self.card["dataset"], name or self.card["dataset"]["name"]
        self._refuse_moved(where, moved=name is None)
        _log.info("reading %s", where)
        side = record["image_size"] if has_any_size(where) else None
        dataset = load_dataset(where, data_dir=data_dir, image_size=side)
        if dataset.fingerprint != record["fingerprint"]:
            raise ValueError(
                f"{dataset.name} is not the data that {self.path} was distilled from (its fingerprint "
                f"differs: {len(dataset.train)} training and {len(dataset.test)} test images found, "
                f"{record['train_images']} and {record['test_images']} expected)"
            )
        if dataset.classes != self.classes:
            raise ValueError(
                f"{self.path / Card.file} does not name the {len(dataset.classes)} classes of "
                f"{dataset.name}, but {len(self.classes)} of its own"
            )
        return dataset

    def _refuse_moved(self, name: str, *, moved: bool) -> None:
        if moved and name.startswith("folder:") and not folder_path(name).is_dir():
            raise ValueError(
                f"{self.path} was distilled from the images in {folder_path(name)}, which is not there any "
                "more: say where they are now (--dataset folder:PATH)"
            )

    def split_real(self, dataset: RealDataset) -> tuple[Split, Split]:
        """(fit, validation): the training images that distillation used, and those it never saw."""
        record = self.card["dataset"]
        return dataset.carve_validation(record["validation_fraction"], record["validation_seed"])

    def pictures(self) -> Tensor:
        """`images` for the eye: uint8 (N*f^2, C, H, W).

        Raises:
            ValueError: if the whitening cannot be undone.
        """
        return self._pictures(self.images, 1)

    def unwhitened(self) -> tuple[Tensor, Preprocessing]:
        """`images` as they were before whitening, and what brings real ones into their space; of a set that
        is not whitened both as they are.

        Raises:
            ValueError: if the whitening cannot be undone.
        """
        whitening = self.preprocessing.whitening
        if whitening is None:
            return self.images, self.preprocessing
        _log.info("undoing the whitening")
        with self._inverting("its whitening cannot be undone"):
            return whitening.inverse(self.images), self.preprocessing.unwhitened()

    def _pictures(self, images: Tensor, factor: int) -> Tensor:
        with self._inverting("no pictures can be had"):
            return as_pictures(self.preprocessing, images, factor)

    @contextmanager
    def _inverting(self, otherwise: str) -> Iterator[None]:
        try:
            yield
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            raise ValueError(f"{self.path / WHITENING} holds a singular matrix: {otherwise}") from None

    def picture(self) -> bytes:
        """What `images.png` holds: the stored images as pictures, a row a class."""
        encoded = BytesIO()
        grid(self._pictures(self.stored, self.factor), self.stored_labels).save(encoded, format="PNG")
        return encoded.getvalue()


def save(
    folder: Path,
    images: Tensor,
    labels: Tensor,
    preprocessing: Preprocessing,
    card: Mapping[str, Any],
    soft_labels: Tensor | None = None,
) -> SyntheticSet:
    """Write a set or a shard; `card.json` or `shard.json` comes last, so a folder that has one is whole.

    Args:
        folder: exists already.
        images: float32 (N, C, H, W) in model space, as they are to be stored.
        labels: int64 (N,).
        card: what `Card` asks for, less format version, preprocessing and digests, which are added; with
            `shard`, what `ShardCard` does.
        soft_labels: float32 (N*f^2, K), if there are any, of which the card has `soft_labels`.
    """
    tensors = {"images": images.float().contiguous(), "labels": labels.contiguous()}
    if soft_labels is not None:
        tensors[SOFT_LABELS] = soft_labels.float().contiguous()
    # Serialised in memory: a full disk then is an OSError like any other, and leaves nothing behind.
    write_bytes(folder / IMAGES, serialize(tensors))
    version = WITH_FACTOR if card.get("factor", 1) > 1 else 1
    version = version if soft_labels is None else FORMAT_VERSION
    whole = {
        **card,
        "format_version": version,
        "images": len(images),
        "images_sha256": digest(folder / IMAGES),
        "preprocessing": save_preprocessing(folder, preprocessing),
    }
    kind = ShardCard if "shard" in card else Card
    checked = kind.model_validate(whole).model_dump(mode="json")
    synthetic = SyntheticSet(
        tensors["images"],
        tensors["labels"],
        tuple(checked["dataset"]["classes"]),
        preprocessing,
        checked,
        folder,
        tensors.get(SOFT_LABELS),
    )
    write_bytes(folder / PICTURE, synthetic.picture())
    if kind is Card:
        write_text(folder / README, readme(checked))
    write_text(folder / kind.file, json.dumps(checked, indent=1) + "\n")
    return synthetic


def save_preprocessing(folder: Path, preprocessing: Preprocessing) -> dict[str, Any]:
    """Write the whitening to `folder`, if there is one; what a card says, as `PreprocessingCard` has it."""
    record: dict[str, Any] = {
        "space": "(pixels / 255 - mean) / std per channel, then ZCA where given: (x - zca mean) @ zca matrix",
        "mean": preprocessing.mean.tolist(),
        "std": preprocessing.std.tolist(),
        "zca": None,
    }
    if preprocessing.whitening:
        tensors = {"mean": preprocessing.whitening.mean, "matrix": preprocessing.whitening.matrix}
        write_bytes(folder / WHITENING, serialize(tensors))
        record["zca"] = {"file": WHITENING, "sha256": digest(folder / WHITENING)}
    return record


def digest(path: Path) -> str:
    """The SHA-256 of a file, as cards have it."""
    found = hashlib.sha256()
    with open_regular(path) as file:
        while part := file.read(2**20):
            found.update(part)
    return found.hexdigest()


def load(directory: Path | str) -> SyntheticSet:
    """Read an artifact.

    Raises:
        ValueError: if the folder is missing, is not a synthetic set, is of a newer format, or was changed.
    """
    folder = Path(directory)
    return _load(folder, read_card(folder))


def load_shard(directory: Path | str) -> SyntheticSet:
    """Read a shard: a set that has images of some classes only; otherwise as `load`."""
    folder = Path(directory)
    return _load(folder, read_shard_card(folder))


def _load(folder: Path, card: Card) -> SyntheticSet:
    tensors = load_tensors(folder / IMAGES, card.images_sha256, file=card.file, what=card.what)
    images, labels = tensors.get("images"), tensors.get("labels")
    if images is None or labels is None or images.shape[1:] != torch.Size(card.dataset.image_shape):
        raise ValueError(f"{folder / IMAGES} does not hold the images that {card.file} describes")
    classes = len(card.dataset.classes)
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise ValueError(f"{folder / IMAGES} needs one int64 label an image, for {len(images)} images")
    if not len(labels) or not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(f"{folder / IMAGES} has labels outside 0..{classes - 1}")
    _require_even(folder, labels, card)
    if images.dtype != torch.float32 or not bool(torch.isfinite(images).all()):
        raise ValueError(f"{folder / IMAGES} holds values that are no finite float32 numbers")
    soft = tensors.get(SOFT_LABELS)
    _require_probabilities(folder, soft, card, len(images))
    shape, named = card.dataset.image_shape, {"file": card.file, "what": card.what}
    preprocessing = load_preprocessing(folder, card.preprocessing, shape, **named)
    return SyntheticSet(
        images, labels, tuple(card.dataset.classes), preprocessing, card.model_dump(mode="json"), folder, soft
    )


def _require_probabilities(folder: Path, soft: Tensor | None, card: Card, stored: int) -> None:
    """The soft labels are those of the card: probabilities of every class, of each small image."""
    if (soft is None) != (card.soft_labels is None):
        says, holds = ("no", "has some") if soft is not None else ("some", "has none")
        raise ValueError(f"{card.file} speaks of {says} soft labels, and {folder / IMAGES} {holds}")
    if soft is None:
        return
    shape = (stored * card.factor**2, len(card.dataset.classes))
    if soft.dtype != torch.float32 or tuple(soft.shape) != shape:
        raise ValueError(f"{folder / IMAGES} needs soft labels of float32 {shape}, not {tuple(soft.shape)}")
    # NaN fails both.
    whole = (soft.sum(dim=1) - 1).abs() < _INEXACT
    if not (bool(whole.all()) and bool((soft >= 0).all())):
        raise ValueError(f"{folder / IMAGES} has soft labels that are no probabilities")


def load_preprocessing(
    folder: Path, record: PreprocessingCard, shape: tuple[int, int, int], *, file: str, what: str
) -> Preprocessing:
    """What `save_preprocessing` wrote.

    Args:
        folder: where the whitening is.
        record: what the card says.
        shape: (C, H, W) of the images.
        file, what: the name of the card, and what it is the card of, for messages.
    Raises:
        ValueError: if the statistics are not those of such images, or the whitening is missing or changed.
    """
    mean, std = torch.tensor(record.mean), torch.tensor(record.std)
    right_size = len(mean) == len(std) == shape[0]
    if not (right_size and bool(torch.isfinite(mean).all()) and bool(((std > 0) & std.isfinite()).all())):
        raise ValueError(f"{folder / file} needs a finite mean and a positive std for {shape[0]} channels")
    if not record.zca:
        return Preprocessing(mean, std)
    size = shape[0] * shape[1] * shape[2]
    sha256, most = str(record.zca.get("sha256")), 4 * size * (size + 1)
    arrays = load_tensors(folder / WHITENING, sha256, file=file, what=what, most=most)
    found = {name: tuple(array.shape) for name, array in arrays.items()}
    if found != {"mean": (size,), "matrix": (size, size)}:
        raise ValueError(f"{folder / WHITENING} does not hold a ZCA of {size} values: {found}")
    _require_whitening(folder / WHITENING, arrays)
    return Preprocessing(mean, std, Whitening(arrays["mean"], arrays["matrix"]))


def _require_even(folder: Path, labels: Tensor, card: Card) -> None:
    """Everything that is compared with a set takes as many real images of each class."""
    numbers = list(card.class_numbers)
    counts = torch.bincount(labels, minlength=len(card.dataset.classes))
    mine = counts[numbers]
    if bool((mine != card.ipc).any()) or int(mine.sum()) != len(labels):
        raise ValueError(
            f"{folder / IMAGES} has {int(mine.min())} to {int(mine.max())} images a class, "
            f"and {card.file} says {card.ipc} of each of {len(numbers)} classes"
        )


def _require_whitening(path: Path, arrays: Mapping[str, Tensor]) -> None:
    for array in arrays.values():
        if array.dtype != torch.float32 or not bool(torch.isfinite(array).all()):
            raise ValueError(f"{path} holds values that are no finite float32 numbers")
    matrix = arrays["matrix"]
    largest = float(matrix.abs().max())
    if not torch.allclose(matrix, matrix.T, rtol=0.0, atol=_ASYMMETRY * largest):
        raise ValueError(f"{path} holds a matrix that is not symmetric, as ZCA's is")


def load_tensors(
    path: Path, sha256: str, *, file: str, what: str, most: int | None = None
) -> dict[str, Tensor]:
    """The tensors of a safetensors file of which a card has the digest.

    Args:
        file, what: the name of the card, and what it is the card of, for messages.
        most: the most bytes that its tensors may have; None: any number.
    Raises:
        ValueError: if there is no such file, it was changed, it is too large, or it is none.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing: the {what} is incomplete")
    if most is not None and path.stat().st_size > most + _LARGEST_HEADER:
        raise ValueError(f"{path} is larger than what {file} describes: it was changed or damaged")
    if digest(path) != sha256:
        raise ValueError(f"{path} was changed or damaged: its SHA-256 is not the one in {file}")
    try:
        return deserialize(path.read_bytes())  # by the file's name it would have to be UTF-8
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file ({error})") from None

"""A synthetic set in formats that other people's scripts read."""

import os
import tempfile
import unicodedata
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from distill.synthetic import SOFT_LABELS, SyntheticSet, load


def _folder(synthetic: SyntheticSet, out: Path) -> None:
    """CLASS/NNN.png: pictures, clipped to 8 bits and de-whitened; what they lose is the model space."""
    pictures = synthetic.pictures().permute(0, 2, 3, 1).numpy()
    counts: dict[int, int] = {}
    names = _folder_names(synthetic.classes)
    for picture, label in zip(pictures, synthetic.labels.tolist(), strict=True):
        number = counts[label] = counts.get(label, -1) + 1
        folder = out / names[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(
            folder / f"{number:03d}.png"
        )


def _folder_names(classes: tuple[str, ...]) -> list[str]:
    """A folder of its own for each class, also where names differ only in what is cleaned away, or in what
    some file systems take for the same: case, and how an accent is encoded."""
    safe = [_safe(name) for name in classes]
    keys = [_key(name) for name in safe]
    taken = {key for key in keys if keys.count(key) == 1}
    names = []
    for k, (name, key) in enumerate(zip(safe, keys, strict=True)):
        names.append(name if keys.count(key) == 1 else _free(f"{name}_{k}", taken))
        taken.add(_key(names[-1]))
    return names


def _free(name: str, taken: set[str]) -> str:
    """`name`, or a longer one if it is taken."""
    while _key(name) in taken:
        name += "_"
    return name


def _key(name: str) -> str:
    """Equal for names that some file system does not tell apart."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _safe(name: str) -> str:
    """A class name from a stranger's card must not leave the folder it is written to."""
    cleaned = name.replace("/", "_").replace("\\", "_").replace("\0", "_")
    return f"_{cleaned}" if cleaned.startswith(".") or not cleaned else cleaned


def _npz(synthetic: SyntheticSet, out: Path) -> None:
    """images (model space), pixels (uint8 N, H, W, C), labels, classes, mean, std; soft labels if any."""
    arrays: dict[str, Any] = {
        "images": synthetic.images.numpy(),
        "pixels": synthetic.pictures().permute(0, 2, 3, 1).numpy(),
        "labels": synthetic.labels.numpy(),
        "classes": np.array(synthetic.classes),
        "mean": synthetic.preprocessing.mean.numpy(),
        "std": synthetic.preprocessing.std.numpy(),
    }
    if synthetic.soft_labels is not None:
        arrays[SOFT_LABELS] = synthetic.soft_labels.numpy()
    with out.open("wb") as file:
        np.savez_compressed(file, **arrays)  # allow_pickle=False would be one more array where NumPy is old


def _pt(synthetic: SyntheticSet, out: Path) -> None:
    """A dict of tensors, readable with torch.load(..., weights_only=True)."""
    soft = {} if synthetic.soft_labels is None else {SOFT_LABELS: synthetic.soft_labels}
    encoded = BytesIO()  # torch reports a full disk as a RuntimeError; write_bytes as what it is
    torch.save(
        {
            "images": synthetic.images,
            "labels": synthetic.labels,
            "mean": synthetic.preprocessing.mean,
            "std": synthetic.preprocessing.std,
            "classes": list(synthetic.classes),
            **soft,
        },
        encoded,
    )
    out.write_bytes(encoded.getvalue())


FORMATS: dict[str, tuple[Callable[[SyntheticSet, Path], None], str]] = {
    "folder": (_folder, "PNG pictures in a folder a class"),
    "npz": (_npz, "one NumPy archive with images, pixels and labels"),
    "pt": (_pt, "one torch file, a dict of tensors"),
}


def export(synthetic: SyntheticSet | Path | str, kind: str, out: Path | str) -> Path:
    """Write `synthetic` to `out`, which must not exist yet; nothing is left behind on failure.

    Args:
        synthetic: a set, or the folder of one.
        kind: folder, of a PNG an image; npz; or pt, see `FORMATS`.
    Returns:
        `out`.
    Raises:
        ValueError: on an unknown format, an `out` that exists, or a folder that holds no set.
    """
    if not isinstance(kind, str) or kind not in FORMATS:
        raise ValueError(f"unknown format {kind!r}; allowed: {', '.join(FORMATS)}")
    if not isinstance(synthetic, SyntheticSet | Path | str) or not isinstance(out, Path | str):
        raise ValueError(
            f"export takes a synthetic set, or the folder of one, and a path, not {synthetic!r}, {out!r}"
        )
    out = Path(out)
    if os.path.lexists(out):
        raise ValueError(f"{out} exists already; name another --out")
    made = synthetic if isinstance(synthetic, SyntheticSet) else load(synthetic)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as staging:
        staged = Path(staging) / out.name
        FORMATS[kind][0](made, staged)
        os.replace(staged, out)
    return out

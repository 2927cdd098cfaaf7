"""Decoded images, kept between commands: decoding a large folder takes longer than all else before a search.

A file is named by a digest of the images' paths, sizes and times of change, so that what is changed is
decoded again. Nothing is lost with the folder.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from distill.files import cache_folder, is_temporary

FEWEST = 2000
"""Images from which on it is worth a file."""
LARGEST_BYTES = 8 * 2**30
"""Of all files together; those that were not used for longest go first."""
_VERSION = "3"
_ABANDONED_SECONDS = 3600.0


def kept(paths: Sequence[Path], what: str, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """What `make` makes of the image files, from an earlier call if they have not changed since.

    Args:
        paths: of the files.
        what: is made of them, in a few words that name every setting.
    Raises:
        OSError: a file is not there.
        Exception: whatever `make` raises.
    """
    if len(paths) < FEWEST:
        return make()
    folder = cache_folder() / "decoded"
    file = folder / f"{_digest(paths, what)}.npy"
    with suppress(OSError, ValueError, EOFError):  # not there, damaged, or not to be read
        found: NDArray[np.uint8] = np.load(file, allow_pickle=False)
        if found.dtype == np.uint8 and found.ndim == 4 and len(found) == len(paths):
            os.utime(file)
            return found
    images = make()
    with suppress(OSError):  # a full or read-only disk
        _keep(file, images)
    return images


def _digest(paths: Sequence[Path], what: str) -> str:
    digest = hashlib.blake2b(f"{_VERSION}\0{PIL.__version__}\0{what}\0".encode(), digest_size=16)
    for path in paths:
        state = path.stat()
        # A time of modification can be set back by whoever replaces a file, that of change cannot.
        marks = (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_dev)
        digest.update(os.fsencode(path.absolute()) + f"\0{marks}\0".encode())
    return digest.hexdigest()


def _keep(file: Path, images: NDArray[np.uint8]) -> None:
    """Write a file, if the disk has plenty of room, and let go of old ones."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if images.nbytes > min(LARGEST_BYTES, shutil.disk_usage(file.parent).free // 4):
        return
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as handle:  # straight to the disk: the images may be gigabytes
            np.save(handle, images, allow_pickle=False)
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
    _let_go(file.parent)


def _let_go(folder: Path) -> None:
    """Remove what was not used for longest, and what killed processes left."""
    files = [(path, path.stat()) for path in folder.iterdir()]
    for path, state in files:
        if is_temporary(path) and time.time() - state.st_mtime > _ABANDONED_SECONDS:
            path.unlink(missing_ok=True)
    total = 0
    kept_files = [(path, state) for path, state in files if path.suffix == ".npy"]
    for path, state in sorted(kept_files, key=lambda each: each[1].st_mtime, reverse=True):
        total += state.st_size
        if total > LARGEST_BYTES:
            path.unlink(missing_ok=True)

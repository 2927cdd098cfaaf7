"""Decoding image files of any size and mode into one uint8 array."""

import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from distill.files import cache_folder, printable, write_bytes

T = TypeVar("T")
Source: TypeAlias = Path | Image.Image

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
)
_GREY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "I;16L"})
_DEPTHS = (8, 12, 16)
_NAMED = 20  # of the unreadable files; the rest are counted
_GIB = 2**30
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What each orientation of EXIF takes."""
_COPYING = threading.Lock()


def image_files(folder: Path) -> list[Path]:
    """The image files below `folder`, sorted; other and hidden files are left out."""
    found: list[Path] = []
    # A link back to a folder above would list the same images again, without end, or those of other classes.
    walked = {str(parent) for parent in folder.resolve().parents}
    for root, folders, names in os.walk(folder, followlinks=True):
        walked.add(os.path.realpath(root))
        visible = sorted(name for name in folders if not name.startswith("."))
        folders[:] = [name for name in visible if os.path.realpath(Path(root) / name) not in walked]
        shown = (Path(root) / name for name in sorted(names) if not name.startswith("."))
        found.extend(path for path in shown if path.suffix.lower() in SUFFIXES)
    return found


def common_size(paths: Sequence[Path]) -> int:
    """The side of the images if all are squares of one size.

    Raises:
        ValueError: if they differ or are not square: then `image_size` must say what to make of them; or if
            none can be read.
    """
    found, failed = _each(lambda index: _size(paths[index]), paths)
    if not found:
        raise ValueError(_unreadable(failed, len(paths)))
    # Those that cannot be read are named by `decode`, together with those whose header alone is whole.
    sizes = sorted(set(found))
    if len(sizes) == 1 and sizes[0][0] == sizes[0][1]:
        return sizes[0][0]
    first, last = (f"{width}x{height}" for width, height in (sizes[0], sizes[-1]))
    what = f"sizes from {first} to {last}" if len(sizes) > 1 else f"size {first}"
    raise ValueError(
        f"the images have {what}, and networks need squares of one size: choose it, e.g. --image-size 32"
    )


def decode(paths: Sequence[Source], side: int, bits: int) -> NDArray[np.uint8]:
    """Read images, cover a `side` x `side` square with each and crop its centre.

    Args:
        paths: of files; or images that are open already, which are left as they are.
        bits: of greys of more than 8 bits, which are all scaled alike: see `grey_bits`.
    Returns:
        uint8 (N, C, side, side); C is 1 if every file is grey, else 3.
    Raises:
        ValueError: naming the first files that cannot be read, and how many there are; or if the images are
            more than this machine can hold.
    """
    _require_memory(len(paths), side)
    pixels = np.empty((len(paths), 3, side, side), dtype=np.uint8)

    def place(index: int) -> bool:
        pixels[index], grey = _read(paths[index], side, bits)
        return grey

    greys, failed = _each(place, paths)
    if failed:
        raise ValueError(_unreadable(failed, len(paths)))
    return np.ascontiguousarray(pixels[:, :1]) if all(greys) else pixels


def _require_memory(count: int, side: int) -> None:
    """Refuse before decoding what could not be kept: the images, and those of them that are distilled from
    once more."""
    memory = _memory_bytes()
    needed = 2 * 3 * count * side * side
    if memory and needed > memory:
        raise ValueError(
            f"{count:,} images of {side}x{side} pixels need {needed / _GIB:,.1f} GiB of memory, and this "
            f"machine has {memory / _GIB:,.1f} GiB; choose smaller ones with --image-size, or fewer"
        )


def _memory_bytes() -> int | None:
    """Of this machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def _each(read: Callable[[int], T], paths: Sequence[Source]) -> tuple[list[T], list[tuple[Source, str]]]:
    """`read` of every position of `paths`, in threads: results, and what is unreadable, with complaints."""

    def attempt(index: int) -> tuple[T | None, str]:
        try:
            return read(index), ""
        except Exception as error:  # noqa: BLE001 - a damaged file may raise whatever its reader trips over
            return None, _complaint(paths[index], error)

    with ThreadPoolExecutor(_threads()) as pool:
        outcomes = list(pool.map(attempt, range(len(paths))))
    results = [result for result, complaint in outcomes if result is not None]
    failed = [(path, said) for path, (_, said) in zip(paths, outcomes, strict=True) if said]
    return results, failed


def _threads() -> int:
    return min(16, os.cpu_count() or 1)


def _size(path: Path) -> tuple[int, int]:
    with _opened(path) as image:
        if image.format == "TIFF":  # which Pillow turns itself: the sides at once, or with the pixels, or not
            return _turned(image).size
        # EXIF orientations 5 to 8 swap the sides.
        width, height = image.size
        return (height, width) if _orientation(image) in (5, 6, 7, 8) else (width, height)


def _orientation(image: Image.Image) -> int | None:
    """As EXIF has it; None where it has none, or is damaged."""
    try:
        found = image.getexif().get(0x0112)
    except Exception:  # noqa: BLE001 - of a block that is damaged anything may be raised; the pixels are whole
        return None
    return found if isinstance(found, int) else None


def _turned(image: Image.Image) -> Image.Image:
    """Upright, if EXIF says how; Pillow's own way writes the block anew, which fails where it is damaged."""
    image.load()
    if image.format == "TIFF":  # which turns those, whatever its EXIF says then
        return image
    method = _UPRIGHT.get(_orientation(image) or 1)
    return image if method is None else image.transpose(method)


def grey_bits(paths: Sequence[Path]) -> int:
    """How many bits the deep greys among the images use: of 8, 12 and 16 those that hold the brightest pixel.

    Files say how many bits they store, and often use fewer: one file alone would not tell. Warns where there
    are such files.
    """
    found, _ = _each(lambda index: _brightest(paths[index]), paths)  # `decode` names those it cannot read
    deep = [value for value in found if value >= 0]
    if not deep:
        return 8
    bits = next((bits for bits in _DEPTHS if max(deep) < 2**bits), _DEPTHS[-1])
    warnings.warn(
        f"{len(deep)} of {len(paths)} images have greys of more than 8 bits, up to {max(deep)}: all are "
        f"taken for {bits} bits and scaled to 8",
        stacklevel=2,
    )
    return bits


def _brightest(path: Path) -> int:
    """The brightest pixel of a file of deep greys; -1 for all others, whose header alone is read."""
    with _opened(path) as image:
        return int(np.asarray(image).max()) if image.mode.startswith("I") else -1


def _read(source: Source, side: int, bits: int) -> tuple[NDArray[np.uint8], bool]:
    """uint8 (3, side, side), and whether the image is grey; `bits` of deep greys."""
    with _opened(source) as opened:
        image = _turned(opened)
        grey = image.mode in _GREY_MODES
        image = _to_rgb(image, bits)
        if image.size != (side, side):
            image = ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)
        return np.asarray(image, dtype=np.uint8).transpose(2, 0, 1), grey


@contextmanager
def _opened(source: Source) -> Iterator[Image.Image]:
    """An image that nothing else reads meanwhile; of one that is open already a copy.

    Raises:
        OSError, ValueError, ...: it is no file, or no image, or has no pixels.
    """
    if isinstance(source, Image.Image):
        with _COPYING:  # Pillow reads pixels late, and not by several threads at once
            image = _copied(source)
        yield image
    elif not stat.S_ISREG(source.stat().st_mode):
        raise OSError("not a regular file")
    else:
        with Image.open(source) as image:
            yield image


def _copied(image: Image.Image) -> Image.Image:
    try:
        copy = image.copy()
    except (AssertionError, AttributeError) as error:  # the latter with Pillow before 11
        closed = isinstance(error, AttributeError) or not str(error)
        raise ValueError("it is closed" if closed else str(error)) from None
    if not all(copy.size):
        raise ValueError("it has no pixels")
    copy.format = image.format
    return copy


def _to_rgb(image: Image.Image, bits: int) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; convert them to 8 bits")
    if image.mode.startswith("I"):
        # Pillow clips deep greys to 255 instead of scaling them.
        values = np.asarray(image, dtype=np.int64) >> (bits - 8)
        if values.max() > 255:
            deepest = bits == _DEPTHS[-1]
            why = "have no known range" if deepest else "are brighter than those trained on can be"
            raise ValueError(f"pixels of more than {bits} bits {why}; convert them to 8 bits")
        image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "black"), layer)
    return image.convert("RGB")


def _complaint(path: Source, error: BaseException) -> str:
    reason = printable(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{printable(path)} ({reason})"


def _unreadable(failed: Sequence[tuple[Source, str]], total: int) -> str:
    complaints = [said for _, said in failed]
    if len(complaints) == 1:
        path = failed[0][0]
        if isinstance(path, Path) and not os.path.lexists(path):
            return f"there is no image {printable(path)}"
        return f"cannot read the image {complaints[0]}; mend or remove it"
    more = len(complaints) - _NAMED
    rest = f" and {more} more{_list([path for path, _ in failed])}" if more > 0 else ""
    listed = ", ".join(complaints[:_NAMED]) + rest
    return f"cannot read {len(failed)} of {total} images: {listed}; mend or remove them"


def _list(failed: Sequence[Source]) -> str:
    """Where all files that failed are listed, a line each, for whatever mends or removes them; nothing where
    there are open images among them, or names that take several lines."""
    files = [path.absolute() for path in failed if isinstance(path, Path) and "\n" not in str(path)]
    if len(files) < len(failed):
        return ""
    file = cache_folder() / "unreadable.txt"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, b"".join(os.fsencode(f"{path}\n") for path in files))
    except OSError:
        return ""
    return f" (all are listed in {file})"

"""Image files and open images that are not as they should be: damaged blocks, pipes, many at once."""

import os
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from distill.sources import images
from distill.sources.images import common_size, decode

# A software name that runs over the end, and orientation 6: Pillow reads it and cannot write it again.
DAMAGED = (
    b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\0\0\x02\0\0\0\x06\0\0\0&"
    b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0hello\0"
)


def picture(width: int = 6, height: int = 4) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_exif_says(orientation: int, suffix: str, tmp_path: Path) -> None:
    """Of TIFF files Pillow turns the pixels itself."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path, plain = tmp_path / f"turned.{suffix}", tmp_path / "plain.png"
    for each in (path, plain):
        picture(8, 8).save(each, exif=exif.tobytes())
    with Image.open(plain) as image:  # Pillow before 10 turns TIFF files twice itself
        upright = np.asarray(ImageOps.exif_transpose(image)).transpose(2, 0, 1)
    assert np.array_equal(decode([path], 8, 8)[0], upright)
    with Image.open(path) as image:
        assert np.array_equal(decode([image], 8, 8)[0], upright)
    picture(8, 4).save(path, exif=exif.tobytes())
    with pytest.raises(ValueError, match="have size 8x4" if orientation < 5 else "have size 4x8"):
        common_size([path])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_exif_block_is_no_reason_not_to_read_the_pixels(tmp_path: Path) -> None:
    plain, damaged = tmp_path / "plain.png", tmp_path / "damaged.png"
    picture(8, 8).save(plain)
    picture(8, 8).save(damaged, exif=DAMAGED)
    with Image.open(damaged) as image, pytest.raises(Exception, match="integer"):
        ImageOps.exif_transpose(image)
    assert np.array_equal(decode([damaged], 8, 8)[0], np.rot90(decode([plain], 8, 8)[0], -1, axes=(1, 2)))
    assert common_size([damaged, plain]) == 8


def test_whatever_a_reader_trips_over_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture().save(tmp_path / "one.png")

    def trips(*_: object) -> None:
        raise KeyError("palette")

    monkeypatch.setattr(images, "_to_rgb", trips)
    for source in (tmp_path / "one.png", picture()):
        with pytest.raises(ValueError, match=r"cannot read the image .*(one\.png|size=6x4).* \('palette'\)"):
            decode([source], 8, 8)


def test_lists_are_of_files_with_names_of_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOM_NAS_CACHE", str(tmp_path))
    monkeypatch.setattr(images, "_NAMED", 2)
    closed = picture()
    closed.close()
    damaged = [tmp_path / name for name in ("a.png", "b.png", "c.png", "d\nd.png")]
    for path in damaged:
        path.write_bytes(b"no picture")
    for sources, said in (
        ([closed] * 4, "and 2 more"),
        (damaged, "and 2 more"),
        (damaged[:3], "(all are listed"),
    ):
        with pytest.raises(ValueError, match="cannot read") as caught:
            decode(sources, 8, 8)
        assert said in str(caught.value)
        assert ("listed" in said) == (tmp_path / "unreadable.txt").exists() == ("listed" in str(caught.value))
    assert (tmp_path / "unreadable.txt").read_text().splitlines() == [str(path) for path in damaged[:3]]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for read in (lambda paths: decode(paths, 8, 8), common_size):
        with pytest.raises(ValueError, match=r"cannot read the image .*pipe\.png \(not a regular file\)"):
            read([tmp_path / "pipe.png"])


def test_of_many_open_images_few_are_copied_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    copied, alive, most = images._copied, set[int](), 0

    def counted(image: Image.Image) -> Image.Image:
        nonlocal most
        copy = copied(image)
        alive.add(id(copy))
        weakref.finalize(copy, alive.discard, id(copy))
        most = max(most, len(alive))
        return copy

    monkeypatch.setattr(images, "_copied", counted)
    monkeypatch.setattr(images, "_threads", lambda: 2)
    one = picture(64, 64)
    assert len(decode([one] * 50, 8, 8)) == 50
    assert 1 <= most <= 4  # two at work, and what they had before

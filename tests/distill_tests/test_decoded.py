"""Decoded images that are kept between commands: the same images, and decoded again when they change."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from distill.sources import decoded, load_dataset
from distill.sources.decoded import kept


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache that keeps even a few images."""
    monkeypatch.setenv("ATOM_NAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(decoded, "FEWEST", 2)
    return tmp_path / "cache" / "decoded"


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Three files."""
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for number, file in enumerate(files):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(file)
    return files


def never() -> NDArray[np.uint8]:
    raise AssertionError("decoded again")


def making(value: int = 1) -> Callable[[], NDArray[np.uint8]]:
    return lambda: np.full((3, 3, 4, 4), value, dtype=np.uint8)


def test_what_was_decoded_once_is_not_decoded_again(cache: Path, paths: list[Path]) -> None:
    first = kept(paths, "side 4", making())
    assert np.array_equal(kept(paths, "side 4", never), first)
    assert [path.suffix for path in cache.iterdir()] == [".npy"]


def test_other_settings_other_files_and_changed_files_are_decoded(cache: Path, paths: list[Path]) -> None:
    kept(paths, "side 4", making())
    assert kept(paths, "side 8", making(2))[0, 0, 0, 0] == 2
    assert kept(paths[:2], "side 4", making(3))[0, 0, 0, 0] == 3
    assert kept(paths[::-1], "side 4", making(4))[0, 0, 0, 0] == 4
    state = paths[1].stat()
    os.utime(paths[1], ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert kept(paths, "side 4", making(5))[0, 0, 0, 0] == 5
    state = paths[1].stat()
    paths[1].write_bytes(paths[1].read_bytes()[::-1])
    os.utime(paths[1], ns=(state.st_atime_ns, state.st_mtime_ns))  # replaced, and its time set back
    assert kept(paths, "side 4", making(6))[0, 0, 0, 0] == 6


@pytest.mark.parametrize("damage", [b"", b"no array", None])
def test_a_damaged_file_is_made_anew(cache: Path, paths: list[Path], damage: bytes | None) -> None:
    first = kept(paths, "side 4", making())
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:-5] if damage is None else damage)
    assert np.array_equal(kept(paths, "side 4", making()), first)
    assert np.array_equal(kept(paths, "side 4", never), first)


def test_an_array_of_objects_is_never_unpickled(cache: Path, paths: list[Path]) -> None:
    kept(paths, "side 4", making())
    (file,) = cache.iterdir()
    np.save(file, np.array([{}, 1], dtype=object), allow_pickle=True)
    assert kept(paths, "side 4", making(7))[0, 0, 0, 0] == 7


def test_few_images_leave_nothing(cache: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "FEWEST", 4)
    kept(paths, "side 4", making())
    assert not cache.exists()


def test_a_folder_that_cannot_be_written_to_does_no_harm(cache: Path, paths: list[Path]) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    assert kept(paths, "side 4", making(3))[0, 0, 0, 0] == 3


def test_the_oldest_go_when_there_are_too_many(
    cache: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, what in enumerate(("a", "b")):
        kept(paths, what, making())
        for file in cache.iterdir():
            os.utime(file, (number, min(number, file.stat().st_mtime)))
    kept(paths, "a", never)  # used, and so the newest
    size = next(cache.iterdir()).stat().st_size
    monkeypatch.setattr(decoded, "LARGEST_BYTES", 2 * size)
    kept(paths, "c", making())
    kept(paths, "a", never)
    assert kept(paths, "b", making(9))[0, 0, 0, 0] == 9


def test_what_killed_processes_left_goes(cache: Path, paths: list[Path]) -> None:
    cache.mkdir(parents=True)
    left, fresh = cache / ".x.npy.1.tmp", cache / ".y.npy.2.tmp"
    for file in (left, fresh):
        file.write_bytes(b"half")
    os.utime(left, (0, 0))
    kept(paths, "side 4", making())
    assert not left.exists()
    assert fresh.exists()


def test_a_dataset_is_the_same_from_the_cache(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for klass in ("a", "b"):
        (tmp_path / "photos" / klass).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (8, 8), (number * 9, 0, ord(klass))).save(
                tmp_path / "photos" / klass / f"{number}.png"
            )
    name = f"folder:{tmp_path / 'photos'}"
    first = load_dataset(name)
    monkeypatch.setattr("distill.sources.folder.decode", lambda *_: never())
    assert load_dataset(name).fingerprint == first.fingerprint

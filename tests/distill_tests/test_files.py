"""Files that are written whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from distill.files import write_text


def test_no_link_takes_the_place_of_a_temporary_file(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("as it was")
    (tmp_path / f".new.{os.getpid()}.tmp").symlink_to(target)
    write_text(tmp_path / "new", "text")
    assert (target.read_text(), (tmp_path / "new").read_text()) == ("as it was", "text")
    assert not (tmp_path / "new").is_symlink()


def test_what_cannot_be_written_is_called_as_the_user_calls_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "none" / "file", tmp_path / "folder"):
        with pytest.raises(OSError, match=r"No such file|Is a directory") as caught:
            write_text(path, "text")
        assert (caught.value.filename, caught.value.filename2) == (str(path), None)
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


def test_what_is_written_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[bool, str]] = []
    sync, path = os.fsync, tmp_path / "new"

    def noted(number: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(number).st_mode)
        synced.append((is_folder, path.read_text() if path.exists() else "not there"))
        assert is_folder or os.fstat(number).st_size == len("text")
        sync(number)

    monkeypatch.setattr(os, "fsync", noted)
    write_text(path, "text")
    assert synced == [(False, "not there"), (True, "text")]

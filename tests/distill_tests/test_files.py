"""Files that are written whole or not at all."""

import os
from pathlib import Path

from distill.files import write_text


def test_no_link_takes_the_place_of_a_temporary_file(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("as it was")
    (tmp_path / f".new.{os.getpid()}.tmp").symlink_to(target)
    write_text(tmp_path / "new", "text")
    assert (target.read_text(), (tmp_path / "new").read_text()) == ("as it was", "text")
    assert not (tmp_path / "new").is_symlink()

"""Which compiled kernels are loaded: they are code, and a cache folder may be shared."""

import os

import pytest

from distill import kernels


def test_kernels_that_anybody_could_have_put_there_are_not_loaded(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made"
    made.write_bytes(b"code")
    path = made.rename(tmp_path / kernels._named("kernels", made))
    assert kernels._is_ours("kernels", path)
    assert not kernels._is_ours("others", path)
    path.chmod(0o666)
    assert not kernels._is_ours("kernels", path)
    path.chmod(0o644)
    path.write_bytes(b"cod")
    assert not kernels._is_ours("kernels", path)
    path.write_bytes(b"code")
    assert kernels._is_ours("kernels", path)
    if os.getuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert kernels._is_ours("kernels", path)  # of whom the folder is, whom the user chose to believe
    tmp_path.chmod(0o1777)
    assert not kernels._is_ours("kernels", path)
    assert not kernels._is_ours("kernels", tmp_path / "absent.so")

"""When kernels are compiled, which are loaded, and what is said of it."""

import os
from typing import Any

import pytest

from distill import kernels

MISSING = kernels.why_unavailable()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"no kernels: {MISSING}")


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


def command(*words: str) -> Any:
    from typer.testing import CliRunner

    from atom_nas.cli import app

    return CliRunner().invoke(app, words)


def test_a_search_without_kernels_says_why_and_goes_on(tmp_path, monkeypatch) -> None:
    from atom_nas import search

    monkeypatch.setenv("ATOM_NAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(search.kernels, "why_unavailable", lambda: "there is no C++ compiler")
    made = command(
        "distill", "--dataset", "digits", "--method", "random", "--ipc", "1", "--out", f"{tmp_path}/s"
    )
    assert made.exit_code == 0
    words = ["search", f"{tmp_path}/s", "--samples", "1", "--epochs", "1", "--reference", "none"]
    result = command(*words, "--out", f"{tmp_path}/r")
    assert result.exit_code == 0
    assert "without fused kernels" in result.stderr
    assert "there is no C++ compiler" in (tmp_path / "r" / "run.json").read_text()


@pytest.fixture
def fresh_kernels(tmp_path, monkeypatch):
    """An empty cache folder, and functions that have forgotten what they found; compiled quickly."""
    monkeypatch.setattr(kernels, "_FLAGS", ("-O0", *kernels._FLAGS[1:]))
    monkeypatch.delenv("ATOM_NAS_KERNELS")
    monkeypatch.setenv("ATOM_NAS_CACHE", str(tmp_path))
    for function in (kernels.load, kernels.why_unavailable):
        function.cache_clear()
    yield tmp_path / "kernels"
    for function in (kernels.load, kernels.why_unavailable):
        function.cache_clear()


def test_kernels_are_compiled_once_a_machine(fresh_kernels, monkeypatch) -> None:
    assert kernels.why_unavailable() is None
    (made,) = fresh_kernels.iterdir()
    strange = fresh_kernels / "strange"
    strange.write_text("no library")
    name = kernels._named(made.stem.rpartition("-")[0], strange)
    strange.rename(fresh_kernels / name)
    with monkeypatch.context() as patched:
        patched.setattr(kernels.subprocess, "run", None)
        kernels.load.cache_clear()
        kernels.library()
    # Whole libraries may be of a machine with the same processor and newer system libraries.
    made.unlink()
    kernels.load.cache_clear()
    kernels.library()
    assert len(list(fresh_kernels.glob("*.so"))) == 2


def test_why_there_are_no_kernels_is_said(fresh_kernels, monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no C++ compiler" in (kernels.why_unavailable() or "")
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho out of order >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    for function in (kernels.load, kernels.why_unavailable):
        function.cache_clear()
    assert "fails (out of order)" in (kernels.why_unavailable() or "")
    assert not list(fresh_kernels.glob("*.so"))


def test_a_command_says_that_it_compiles(fresh_kernels, monkeypatch, tmp_path) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    words = ["distill", "--dataset", "digits", "--ipc", "1", "--iterations", "1", "--out", f"{tmp_path}/set"]
    told = command(*words).stderr
    assert told.count(f"compiling the kernels for this processor with {compiler}, which takes") == 1


def test_what_is_left_of_a_library_is_compiled_anew(fresh_kernels, monkeypatch, tmp_path) -> None:
    """A library that is cut short would end the process once a page that is missing is read."""
    compiler, calls = tmp_path / "compiler", tmp_path / "calls"
    compiler.write_text(f'#!/bin/sh\nfor last; do :; done\necho "no library" > "$last"\necho >> {calls}\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    counts = []
    for left in (None, None, 5, 0):
        if left is not None:
            (made,) = (path for path in fresh_kernels.iterdir() if path.is_file())
            made.write_bytes(made.read_bytes()[:left])
            (made.parent / f"{made.stem[:-3]}abc.so").mkdir(exist_ok=True)  # never a library
        for function in (kernels.load, kernels.why_unavailable):
            function.cache_clear()
        assert "cannot be loaded" in (kernels.why_unavailable() or "")
        counts.append(len(calls.read_text().splitlines()))
    assert [count // counts[0] for count in counts] == [1, 2, 3, 4]

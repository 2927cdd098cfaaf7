"""Spaces of the user's own: how they are named, and which files are their code."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from space_helpers import CONSTRAINED, HEAD, written

import search_spaces


def test_names_of_every_kind_are_the_same_space(
    own_space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own_space.parent)
    resolved = {search_spaces.resolve(f"{name}:Blocks") for name in ("my_spaces.py", "my_spaces", own_space)}
    assert resolved == {f"{own_space}:Blocks"}
    monkeypatch.chdir(tmp_path)
    (name,) = resolved
    assert search_spaces.load(name).name == name
    assert search_spaces.resolve("hub:darts") == "hub:darts"
    assert search_spaces.resolve("convnet") == "convnet"


def test_a_module_of_a_package_may_import_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "a_package_of_spaces"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "widths.py").write_text("WIDTHS = [4, 8]\n")
    plain = "class Plain(ModelSpace):\n    def __init__(self, classes):\n        super().__init__()\n"
    plain += "        self.head = MutableLinear(nni.choice('w', WIDTHS), classes)\n"
    written(package, "from .widths import WIDTHS\n" + plain, "plain.py")
    monkeypatch.chdir(tmp_path)
    for name in ("a_package_of_spaces.plain:Plain", "a_package_of_spaces/plain.py:Plain"):
        assert search_spaces.load(name).choices == {"w": ("4", "8")}


def test_a_file_that_has_changed_is_read_again(tmp_path: Path) -> None:
    path = written(tmp_path, CONSTRAINED)
    before = search_spaces.load(f"{path}:Constrained")
    times = path.stat().st_atime, path.stat().st_mtime
    path.write_text(path.read_text().replace("[1, 2, 3]", "[1, 2, 4]"))
    os.utime(path, times)
    after = search_spaces.load(f"{path}:Constrained")
    assert (before.choices["a"], after.choices["a"]) == (("1", "2", "3"), ("1", "2", "4"))
    assert before.digest != after.digest  # type: ignore[attr-defined]


PLAIN = """
class Plain(ModelSpace):
    def __init__(self, classes):
        super().__init__()
        self.head = MutableLinear(nni.choice('w', widths()), classes)
"""


def modules(folder: Path, **files: str) -> Path:
    """Files by their names; the space Plain is in the one called space."""
    for name, code in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEAD * ("ModelSpace" in code) + code)
        os.utime(path, (1, 1))  # so that a compiled file of another state would be taken for its own
    return folder


LAZY = "def widths():\n    import helper\n    return helper.widths()\n"
COMPUTED = "import importlib\nwidths = importlib.import_module('hel' + 'per').widths\n"


@pytest.mark.parametrize(
    ("named", "imports", "others", "changed"),
    [
        ("space", "from helper import widths\n", {}, "helper"),
        ("space", "from h2 import widths\n", {"h2": "from helper import *"}, "helper"),
        ("space", LAZY, {}, "helper"),
        ("space", COMPUTED, {}, "helper"),
        ("space", "from parts.helper import widths\n", {"parts/__init__": ""}, "parts/helper"),
        ("space", "from pieces import helper\nwidths = helper.widths\n", {}, "pieces/helper"),
        ("own/space", "from .helper import widths\n", {"own/__init__": ""}, "own/helper"),
        ("own/space", "from . import widths\n", {}, "own/__init__"),
        ("own/space", "import own.a.helper as h\nwidths = h.widths\n", {"own/__init__": ""}, "own/a/helper"),
        (
            "own/a/space",
            "from ..b.helper import widths\n",
            {f"own/{name}__init__": "" for name in ("", "a/", "b/")},
            "own/b/helper",
        ),
    ],
)
def test_what_a_space_imports_of_the_users_own_is_part_of_its_code(
    tmp_path: Path,
    named: str,
    imports: str,
    others: dict[str, str],
    changed: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [*sys.modules]:  # of other tests
        if name.partition(".")[0] in ("helper", "h2", "parts", "pieces", "own"):
            monkeypatch.delitem(sys.modules, name)
    files = {named: imports + PLAIN, **others}
    four, six = (f"def widths():\n    return [{width}, 8]\n" for width in (4, 6))
    name = f"{modules(tmp_path / 'one', **files, **{changed: four}) / named}.py:Plain"
    first, again = search_spaces.load(name), search_spaces.load(name)
    modules(tmp_path / "one", **{changed: six})
    after = search_spaces.load(name)
    modules(tmp_path / "one", **{changed: four})
    back = search_spaces.load(name)
    found = [each.choices["w"][0] for each in (first, again, after, back)]
    assert found == ["4", "4", "6", "4"]
    codes = [each.code for each in (first, again, after, back)]  # type: ignore[attr-defined]
    assert codes[0] == codes[1] == codes[3] != codes[2]
    assert after.changed(first.code, dict(first.sources)) == (f"{changed}.py",)  # type: ignore[attr-defined]
    moved = modules(tmp_path / "two", **files, **{changed: four}) / named
    elsewhere = "import search_spaces, sys; print(search_spaces.load(sys.argv[1]).code)"
    command = [sys.executable, "-c", elsewhere, f"{moved}.py:Plain"]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stdout.split() == [codes[0]]


def test_files_of_one_name_beside_two_spaces_are_kept_apart(tmp_path: Path) -> None:
    for width in (4, 6):
        files = {
            "space": "from beside import widths\n" + PLAIN,
            "beside": f"def widths(): return [{width}]\n",
        }
        modules(tmp_path / str(width), **files)
    for width in (4, 6, 4):
        space: Any = search_spaces.load(f"{tmp_path / str(width) / 'space.py'}:Plain")
        assert space.choices["w"] == (str(width),)
        assert list(space.sources) == ["space.py", "beside.py"]


def test_what_is_installed_or_unused_is_no_part_of_its_code(tmp_path: Path) -> None:
    space = "import json, torch, installed\ndef widths(): return [4, 8]\n" + PLAIN
    path = modules(tmp_path, space=space, unused="", installed="") / "space.py"
    loaded: Any = search_spaces.load(f"{path}:Plain")
    assert list(loaded.sources) == ["space.py", "installed.py"]
    packages = tmp_path / "env" / "site-packages"
    package = modules(packages, **{"a_space/__init__": "", "a_space/space": space, "installed": ""})
    loaded = search_spaces.load(f"{package / 'a_space' / 'space.py'}:Plain")
    assert list(loaded.sources) == ["a_space/space.py", "a_space/__init__.py"]
    alone: Any = search_spaces.load(f"{written(tmp_path, PLAIN.replace('widths()', '[4, 8]'))}:Plain")
    assert alone.code == f"sha256:{hashlib.sha256((tmp_path / 'spaces.py').read_bytes()).hexdigest()}"

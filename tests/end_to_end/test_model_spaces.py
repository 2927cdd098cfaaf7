"""The guide to a space of one's own as a user follows it, and the lines that mistakes get."""

import os
import subprocess
import sys

import pytest
from cli_helpers import done, refused

QUICK = ["--epochs", 2, "--reference", "none", "--workers", 2, "--device", "cpu"]


@pytest.fixture
def here(own_space, tmp_path, monkeypatch):
    """A working directory with the guide's file in it."""
    (tmp_path / own_space.name).write_text(own_space.read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_guide(synthetic, here):
    run = here / "blocks"
    own = ["--space", "my_spaces.py:Blocks", "--set-space", "deepest=3"]
    done("search", synthetic, *own, "--samples", 4, *QUICK, "--out", run)
    rows = (run / "report" / "ranking.csv").read_text().splitlines()
    assert len(rows) == 5
    assert all("block0=" in row and "+block2=" in row and "+depth=" in row for row in rows[1:])
    line = refused("search", synthetic, "--out", run, "--resume", "--samples", 5)
    assert f"add --space {here / 'my_spaces.py'}:Blocks" in line
    resumed = ["--space", "my_spaces:Blocks", "--samples", 5]
    done("search", synthetic, "--out", run, "--resume", *resumed)
    assert len((run / "report" / "ranking.csv").read_text().splitlines()) == 6
    again = ["--architectures", run / "report" / "ranking.csv", "--out", here / "again"]
    done("search", synthetic, *own, *QUICK, *again)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--space", "my_spaces.py:Block"], "did you mean 'Blocks'?"),
        (["--space", "others.py:Blocks"], "there is no file"),
        (["--space", "no_module_of_mine:Blocks"], "there is no module"),
        (["--space", "my_spaces.py:nn"], "is not a ModelSpace of NNI"),
        (["--space", "hub:darst"], "did you mean 'darts' or"),
        (["--space", "my_spaces.py:Blocks", "--set-space", "deepest=many"], "takes int"),
        (["--space", "my_spaces.py:Blocks", "--set-space", "classes=3"], "comes from the dataset"),
        (
            ["--space", "my_spaces.py:Blocks", "--set-space", "deepest=0"],
            "constructor of my_spaces.py:Blocks",
        ),
    ],
)
def test_mistakes(synthetic, here, arguments, said):
    assert said in refused("search", synthetic, *arguments, *QUICK, "--out", here / "run")
    assert not (here / "run").exists()


def test_a_changed_file_is_named_in_one_line(synthetic, here):
    space = here / "my_spaces.py"
    space.write_text(space.read_text().replace("import nni", "import nni\nfrom acts import Act", 1))
    space.write_text(space.read_text().replace("nn.ReLU()", "Act()"))
    (here / "acts.py").write_text("from torch.nn import ReLU as Act\n")
    done("search", synthetic, "--space", "my_spaces.py:Blocks", "--samples", 1, *QUICK, "--out", "run")
    (here / "acts.py").write_text("from torch.nn import Tanh as Act\n")
    words = [
        "search",
        synthetic,
        "--space",
        "my_spaces.py:Blocks",
        "--resume",
        "--samples",
        2,
        "--out",
        "run",
    ]
    # In a process of its own, as pytest takes warnings for itself.
    said = subprocess.run(
        [sys.executable, "-m", "atom_nas.cli", *map(str, words)],
        capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
    )  # fmt: skip
    (line,) = [line for line in said.stderr.splitlines() if "arning" in line]
    assert line.startswith("warning: acts.py has changed since run was begun: trials from before are of")


def test_a_form_that_does_not_parse(synthetic, here):
    (here / "list.csv").write_text("architecture\nblock0=pool+block1=pool+depth=9+width=8\n")
    own = ["--space", "my_spaces.py:Blocks", "--architectures", "list.csv"]
    line = refused("search", synthetic, *own, *QUICK, "--out", here / "run")
    assert "list.csv, line 2: unknown depth '9': allowed: 1, 2" in line


def test_lists_name_them():
    spaces = done("list", "spaces").stdout
    assert "hub:darts" in spaces
    assert "FILE.py:CLASS" in spaces
    assert "left out" in spaces
    assert "hub:mobilenetv3" in done("list", "settings").stdout

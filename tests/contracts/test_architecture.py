"""The rooms and their arrows: read from the imports, so that a wrong one fails here."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("distill", "search_spaces", "reports")
SOURCES = sorted(path for room in (*ROOMS, "atom_nas") for path in (ROOT / room).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level packages imported anywhere in a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_neither_one_another_nor_the_top(room):
    others = {*ROOMS, "atom_nas"} - {room}
    files = [path for path in SOURCES if path.relative_to(ROOT).parts[0] == room]
    assert len(files) > 3
    wrong = {str(path): imported(path) & others for path in files if imported(path) & others}
    assert not wrong


def test_one_file_touches_nni_and_none_unpickles():
    assert [p.name for p in SOURCES if "nni" in imported(p)] == ["_nni.py"]
    assert not [p for p in SOURCES if imported(p) & {"pickle", "dill", "cloudpickle", "joblib"}]


def test_only_the_command_line_prints_and_exits():
    allowed = {"commands/guard.py", "terminal/console.py", "terminal/stages.py", "terminal/summary.py"}
    for path in SOURCES:
        if path in {ROOT / "atom_nas" / name for name in allowed}:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("print", "exit", "quit", "sys.exit"), f"{path}:{node.lineno}"
                if called == "torch.load":
                    raise AssertionError(f"{path}:{node.lineno} calls torch.load")


LONG_FUNCTIONS = 18
"""That have more than 40 lines, docstrings included: fewer are welcome, more are not."""


def test_functions_are_small():
    long = 0
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= 60, f"{path}:{node.lineno} {node.name} has {length} lines"
                long += length > 40
    assert long <= LONG_FUNCTIONS, "functions are rarely longer than 40 lines"


HEAVY = ("torch", "torchvision", "nni", "matplotlib", "pandas", "scipy", "sklearn", "numpy")


@pytest.mark.parametrize(
    "command",
    [
        "import atom_nas, distill, search_spaces, reports",
        "import distill.methods, distill.sources, atom_nas.estimators, atom_nas.strategies, atom_nas.engines",
        "from atom_nas.cli import app; app(['--help'], standalone_mode=False)",
        "from atom_nas.cli import app; app(['distill', '--help'], standalone_mode=False)",
        "from atom_nas.cli import app; app(['search', '--help'], standalone_mode=False)",
        "from atom_nas.cli import app; app(['list', 'methods'], standalone_mode=False)",
        "from atom_nas.cli import app; app(['plan', '--width', '0.2'], standalone_mode=False)",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(command):
    check = f"import sys\n{command}\nprint(*[name for name in {HEAVY!r} if name in sys.modules], sep=',')"
    result = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.splitlines()[-1] == ""

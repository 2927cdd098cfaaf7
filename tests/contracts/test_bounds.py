"""The oldest versions that the project says it works with are those that it can be tested with."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENT = re.compile(r'"([\w.-]+)>=([\w.]+)"')


def test_the_oldest_versions_are_those_of_the_requirements():
    text = (ROOT / "pyproject.toml").read_text()
    project = text[text.index("dependencies = [") : text.index("dev = [")]
    bounds = {name.lower(): version for name, version in REQUIREMENT.findall(project)}
    lines = (ROOT / "tests" / "oldest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert pinned == bounds
    assert {"torch", "torchvision", "nni", "pytest"} <= pinned.keys()

"""Commands as a user types them, in the test's own process."""

import re
from pathlib import Path

from typer.testing import CliRunner

from atom_nas.cli import app

QUICK = ["--set", "width=8", "--set", "batch_real=8"]


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def done(*arguments):
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments):
    """The one line that a user error prints."""
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("atom-nas: ")]
    assert len(lines) == 1, result.output
    assert "Traceback" not in result.output
    return lines[0]


def file_of_guide(name):
    """What the guide to networks, spaces and scores of one's own says to put into a file of that name."""
    text = (Path(__file__).parents[2] / "docs/guide/extending.md").read_text(encoding="utf-8")
    (code,) = re.findall(rf"`{re.escape(name)}`.*?```python\n(.*?)```", text, flags=re.DOTALL)
    return code

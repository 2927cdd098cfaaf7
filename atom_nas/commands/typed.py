"""What the user typed: the command line for records, and which parameters it gave."""

import shlex
import sys

import typer


def command_line() -> str:
    """The command as it would be typed to do the same anew."""
    return shlex.join(["atom-nas", *(word for word in sys.argv[1:] if word != "--resume")])


def said(context: typer.Context) -> set[str]:
    """The parameters that were typed, as against those that are at their defaults."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}

"""What surrounds every command: arguments as people write them, one line for every error, the exit code."""

import functools
import logging
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperGroup

import atom_nas
from atom_nas.names import harmless
from distill.process import is_want_of_memory

Command = TypeVar("Command", bound=Callable[..., None])

DEFECT = 1  # of the program
USER_ERROR = 2
INTERRUPTED = 130

# typer's own copy of click, or click itself, as the installed typer has it.
_UsageError: Any = typer.BadParameter.__bases__[0]
_RESUME = "; what was finished is stored: repeat the command with --resume to go on"
_RUN = {"prog_name": "atom-nas", "standalone_mode": False}
_WAY_ON = {
    "distill": _RESUME,
    "search": f"{_RESUME}; 'atom-nas report RUN' shows what is there",
    "quickstart": _RESUME,
    "label": "; finished epochs are stored: repeat the command to go on",
    "evaluate": "; finished trainings are stored: repeat the command to go on",
}

_TOO_LITTLE = (
    "this machine has too little memory for it; smaller images, fewer of them at a time (--set batch_real=16 "
    "classes_at_once=1 for distill, batch_size=32 for trainings) or fewer --workers take less: "
)
_PACKAGES = ("atom_nas", "distill", "reports", "search_spaces")
_TAKE_OR_LEAVE = ("--tensorboard",)
_ASSIGNMENT = re.compile(r"\w+=")
_debug = False


class Commands(TyperGroup):
    """The group of all commands: a usage error is one line, like every other; no arguments ask for help."""

    def main(
        self, args: Sequence[str] | None = None, *_: Any, standalone_mode: bool = True, **extra: Any
    ) -> Any:
        """Run the command line, then exit unless the caller wants to go on (`standalone_mode` is click's)."""
        global _debug
        given = list(sys.argv[1:] if args is None else args)
        # '--debug' may stand anywhere.
        _debug = "--debug" in given
        given = list(spread_settings(argument for argument in given if argument != "--debug"))
        given = list(fill_optional(given))
        with _stopped_by_sigterm(), plain_warnings(), _told():
            try:
                code = super().main(given or ["--help"], **{**extra, **_RUN}) or 0
            except _UsageError as error:
                code = _report_usage(error)
        if standalone_mode:
            sys.exit(code)
        return code


def spread_settings(arguments: Iterable[str]) -> Iterator[str]:
    """`--set a=1 b=2` as `--set a=1 --set b=2`; likewise `--set-reference` and its kin."""
    option, has_value = "", False
    for argument in arguments:
        if argument.startswith("-"):
            option, has_value = argument.partition("=")[0], "=" in argument
        elif has_value and option.startswith("--set") and _ASSIGNMENT.match(argument):
            yield option
        else:
            has_value = True
        yield argument


def fill_optional(arguments: Sequence[str]) -> Iterator[str]:
    """`--tensorboard` without a folder as `--tensorboard=`, which stands for the default one."""
    for argument, following in pairwise([*arguments, "-"]):
        alone = argument in _TAKE_OR_LEAVE and following.startswith("-")
        yield f"{argument}=" if alone else argument


def guarded(command: Command) -> Command:
    """Turn what goes wrong in a command into one line and an exit code."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            way = _way_on(command.__name__, kwargs.get("out"), bool(kwargs.get("overwrite")))
            _fail(f"interrupted{way}", INTERRUPTED)
        except BrokenPipeError:
            sys.stderr.close()  # The reader of our output has gone; so do we.
            raise typer.Exit(0) from None
        except (ValueError, OSError) as error:
            _fail(_one_line(error), USER_ERROR)
        except typer.Exit:
            raise
        except Exception as error:  # noqa: BLE001
            if is_want_of_memory(error):
                _fail(_TOO_LITTLE + _one_line(error).partition(" Exception raised from")[0], USER_ERROR)
            _fail(f"{type(error).__name__}: {_one_line(error)} (--debug shows where)", DEFECT)

    return run  # type: ignore[return-value]


def _way_on(command: str, out: Any, overwrite: bool) -> str:
    """How an interrupted command is gone on with; one with a folder of its own may not have begun it yet."""
    way = _WAY_ON.get(command, "")
    if way == _RESUME and overwrite:
        return f"{_RESUME} in place of --overwrite, or as it is where that finds the old set only"
    if way.startswith(_RESUME) and isinstance(out, Path):
        stored = out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir())
        return way if stored else "; nothing is stored yet: repeat the command"
    return way


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let `kill` stop a command as Ctrl-C does: workers are ended, and the way on is said."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's business
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show warnings of ours as one line each, without the place in the program; others as Python does."""
    before, home = warnings.formatwarning, Path(atom_nas.__file__).parents[1]

    def one_line(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        place = Path(filename)
        ours = place.is_relative_to(home) and place.relative_to(home).parts[0] in _PACKAGES
        if category is UserWarning and ours:
            return f"warning: {' '.join(harmless(str(message)).split())}\n"
        return before(message, category, filename, lineno, line)

    warnings.formatwarning = one_line
    try:
        yield
    finally:
        warnings.formatwarning = before


class _OnTheTerminal(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        from atom_nas.terminal.console import say

        say(record.getMessage())


@contextmanager
def _told() -> Iterator[None]:
    """Within, what the packages log of long waits is said on stderr, above any progress bar."""
    log, handler = logging.getLogger("distill"), _OnTheTerminal()
    before = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def _report_usage(error: Any) -> int:
    if _debug:
        traceback.print_exception(error)
    command = error.ctx.command_path if error.ctx else "atom-nas"
    message = " ".join(_usage(error).split()).rstrip(".")
    sys.stderr.write(f"atom-nas: {message}; see '{command} --help'\n")
    return USER_ERROR


def _usage(error: Any) -> str:
    """What is wrong with the arguments; of a value by its option, with the value."""
    if hasattr(error.__cause__, "errors"):  # newer versions of typer ask pydantic
        from atom_nas.config import first_wrong

        option = max(error.param.opts, key=len, default="") if error.param else ""
        return first_wrong(error.__cause__, option)
    # Some versions of click and typer together name an environment variable where there is none.
    return str(error.format_message()).replace(" (env var: 'None')", "")


def _fail(message: str, code: int) -> None:
    if _debug:
        traceback.print_exc()
    sys.stderr.write(f"atom-nas: {message}\n")
    raise typer.Exit(code)


def _one_line(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, FileExistsError) and error.filename:
        text = f"{error.filename} is no folder, but a file or a link to nothing: name another place"
    return " ".join(harmless(text).split()) or type(error).__name__

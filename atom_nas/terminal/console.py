"""What the commands show on the terminal: progress with ETA, and tables. Results go to stdout, the rest to
stderr; where stderr is no terminal, progress is a plain line every few seconds."""

import functools
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from atom_nas.names import harmless

_LINE_SECONDS = 10.0
_LONGEST_NAME = 120
_WHOLE, _LONGEST_WHOLE = "architecture", 40
"""The column of names to be copied, which others make room for, and the longest for which they can."""
_NEEDED = 12  # letters and lines of each other column, to be read
_PIPED_WIDTH = 120
"""Of tables in files and pipes, which have none of their own."""
_PACE_SECONDS, _PACE_PIECES = 30.0, 8

stderr = Console(stderr=True, highlight=False, emoji=False)
_piped = not (sys.stdout and sys.stdout.isatty()) and "COLUMNS" not in os.environ
stdout = Console(highlight=False, emoji=False, soft_wrap=True, width=_PIPED_WIDTH if _piped else None)


@functools.cache
def claim_stdout() -> None:
    """From now on nothing reaches standard output but what `stdout` prints: what a user's code writes there,
    programs that it starts included, goes to stderr. For a command whose result other programs read."""
    try:
        sys.stdout.flush()
        place = sys.stdout.fileno()
        ours = os.dup(place)
        os.dup2(sys.stderr.fileno(), place)
    except (OSError, ValueError, AttributeError):  # closed, or no file, as where a test listens
        return
    stdout.file = os.fdopen(ours, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)


def say(text: str) -> None:
    """Print a line to stderr as it is, however narrow the terminal."""
    stderr.print(text, markup=False, soft_wrap=True)


def clock(seconds: float) -> str:
    """Seconds as 0:42, 3:07 or 2:05:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Pace:
    """Speed and remaining time, from what was done lately; empty before anything was.

    Lately is the last half minute, or as long as the last 8 pieces took: a slow start is soon forgotten.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._reports: deque[tuple[float, float]] = deque()

    def __call__(self, done: float, free: float) -> str:
        now, paid = time.monotonic(), done - free
        self._reports.append((now, paid))
        while len(self._reports) > 2 and self._is_old(*self._reports[1]):
            self._reports.popleft()
        since, first = self._reports[0]
        if paid <= first or now <= since:
            return ""
        rate = (paid - first) / (now - since)
        speed = f"{rate:.2f}/s" if rate >= 1 else f"{1 / rate:.2f} s each"
        return f"{speed}, ETA {clock(max(0.0, self.total - done) / rate)}"

    def _is_old(self, when: float, paid: float) -> bool:
        now, latest = self._reports[-1]
        return now - when >= _PACE_SECONDS and latest - paid >= _PACE_PIECES


class Bar:
    """What a stage tells of its progress.

    Args:
        total: of all that there is to do.
        show: given what is done, the total, and the words beside.
    """

    def __init__(self, total: int, show: Callable[[int, int, str], None]) -> None:
        self._pace, self._show = _Pace(total), show

    def __call__(
        self,
        done: int,
        note: str = "",
        free: float = 0,
        pieces: float | None = None,
        total: int | None = None,
    ) -> None:
        """Show how far the stage is.

        Args:
            note: a few words such as the latest loss.
            free: how much of what is done cost nothing, being known from before.
            pieces: where some takes longer than other, how much is done in pieces of mean length, in which
                `free` then is, too.
            total: another one than before.
        """
        self._pace.total = total or self._pace.total
        behind = self._pace(done if pieces is None else pieces, free)
        self._show(done, self._pace.total, _joined(behind, note))


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Bar]:
    """A bar on a terminal, plain lines elsewhere."""
    if not stderr.is_terminal:
        yield Bar(total, _plain_lines(title))
        return
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=stderr) as progress:
        task = progress.add_task(title, total=total, note="")

        def show(done: int, total: int, words: str) -> None:
            progress.update(task, completed=done, total=total, note=words)

        yield Bar(total, show)


def _plain_lines(title: str) -> Callable[[int, int, str], None]:
    last, ended = time.monotonic() - _LINE_SECONDS, -1

    def show(done: int, total: int, words: str) -> None:
        nonlocal last, ended
        if ended >= total or (done < total and time.monotonic() - last < _LINE_SECONDS):
            return
        ended = total if done >= total else -1
        last = time.monotonic()
        say(_joined(f"{title}: {done}/{total}", words))

    return show


def _joined(*parts: str) -> str:
    return "  ".join(part for part in parts if part)


def shortened(name: str) -> str:
    """An architecture's string form, for a terminal: spaces of many choices have very long ones."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of strings to stdout; numbers are right-aligned."""
    sheet = Table(title=title, title_justify="left", title_style="bold")
    for i, name in enumerate(header):
        numeric = all(row[i][:1] in "0123456789-–.+ " for row in rows) and bool(rows)
        longest = max((len(row[i]) for row in rows), default=0)
        room = stdout.width - longest >= _NEEDED * (len(header) - 1)
        whole = name == _WHOLE and longest <= _LONGEST_WHOLE and room
        sheet.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=whole)
    for row in rows:
        sheet.add_row(*(escape(harmless(cell)) for cell in row))
    stdout.print(sheet)

"""What the commands show on the terminal: progress with ETA, and tables. Results go to stdout, the rest to
stderr; where stderr is no terminal, progress is a plain line every few seconds."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from atom_nas.names import harmless

_LINE_SECONDS = 10.0
_LONGEST_NAME = 120
_PACE_SECONDS, _PACE_PIECES = 30.0, 8

stderr = Console(stderr=True, highlight=False)
stdout = Console(highlight=False, soft_wrap=True)


class Bar(Protocol):
    """`bar(done, note, free, pieces, total)`: how much is done, a few words such as the latest loss, how much
    of what is done cost nothing, being known from before; where some takes longer than other, how much it is
    in pieces of mean length, in which `free` then is, too; and another total than before."""

    def __call__(
        self,
        done: int,
        note: str = "",
        free: float = 0,
        pieces: float | None = None,
        total: int | None = None,
    ) -> None: ...


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


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Bar]:
    """A bar on a terminal, plain lines elsewhere."""
    pace = _Pace(total)
    if not stderr.is_terminal:
        yield _plain_lines(title, pace)
        return
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=stderr) as progress:
        task = progress.add_task(title, total=total, note="")

        def show(
            done: int,
            note: str = "",
            free: float = 0,
            pieces: float | None = None,
            total: int | None = None,
        ) -> None:
            pace.total = total or pace.total
            behind = pace(done if pieces is None else pieces, free)
            progress.update(task, completed=done, total=pace.total, note=_joined(behind, note))

        yield show


def _plain_lines(title: str, pace: _Pace) -> Bar:
    last, ended = time.monotonic() - _LINE_SECONDS, 0

    def show(
        done: int,
        note: str = "",
        free: float = 0,
        pieces: float | None = None,
        total: int | None = None,
    ) -> None:
        nonlocal last, ended
        pace.total = total or pace.total
        text = pace(done if pieces is None else pieces, free)
        if ended >= pace.total or (done < pace.total and time.monotonic() - last < _LINE_SECONDS):
            return
        ended = pace.total if done >= pace.total else 0
        last = time.monotonic()
        stderr.print(_joined(f"{title}: {done}/{pace.total}", text, note), markup=False, soft_wrap=True)

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
        sheet.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        sheet.add_row(*(escape(harmless(cell)) for cell in row))
    stdout.print(sheet)

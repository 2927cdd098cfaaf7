"""Ways of doing one thing that take turns, each in a process of its own, so that none settles the machine for
another: how memory is taken, which threads wait, what is compiled.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from distill.process import HUGE_PAGES, claim

# What is in force where nobody asks for anything: small pages, threads that spin for a while (GCC's OpenMP).
_PLAIN = {HUGE_PAGES: "0", "GOMP_SPINCOUNT": "300000"}
UNMEASURED = 2
"""The first turns compile and warm up."""


class Finished(Exception):  # noqa: N818 - the end, as StopIteration is
    """There are no more turns."""


class Turns:
    """What a way is given: it calls `wait` before each piece of work.

    Args:
        pieces: of work that a turn has; on a GPU one would measure little but the waiting for it.
    """

    def __init__(self, channel: Connection, device: torch.device, pieces: int) -> None:
        self._channel, self._device, self._pieces = channel, device, pieces
        self._started: float | None = None
        self._left = 0

    def wait(self) -> None:
        """End the present turn when all its pieces are done, and wait for the next one.

        Raises:
            Finished: there is none.
        """
        if self._left:
            self._left -= 1
            return
        self._left = self._pieces - 1
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        if self._started is not None:
            self._channel.send((time.perf_counter() - self._started) / self._pieces)
        if not self._channel.recv():
            raise Finished
        self._started = time.perf_counter()


@dataclass(frozen=True)
class Way:
    """One way: called with its `Turns`, then `arguments`, among which is the device.

    Attributes:
        threads: of torch.
        pieces: of work a turn, see `Turns`.
        plain: without what importing our packages settles for a process.
    """

    run: Callable[..., None]
    arguments: tuple[Any, ...]
    threads: int
    pieces: int = 1
    plain: bool = False


def take_turns(ways: Mapping[str, Way], repeats: int) -> dict[str, list[float]]:
    """Seconds a piece of work in `repeats` turns of each way, one after the other.

    Raises:
        RuntimeError: a way has failed; the message says how.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with ExitStack() as stack:
        channels = {name: stack.enter_context(_started(way)) for name, way in ways.items()}
        for turn in range(UNMEASURED + repeats):
            for name, channel in channels.items():
                channel.send(True)
                found = _answer(name, channel)
                if turn >= UNMEASURED:
                    seconds[name].append(found)
    return seconds


def _answer(name: str, channel: Connection) -> float:
    try:
        found = channel.recv()
    except (EOFError, OSError):
        found = "its process has died"
    if not isinstance(found, float):
        raise RuntimeError(f"the way {name!r} cannot be measured: {found}")
    return found


@contextmanager
def _started(way: Way) -> Iterator[Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, way), daemon=True)
    with _environment(way):
        process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join(5.0)
        process.kill()


@contextmanager
def _environment(way: Way) -> Iterator[None]:
    """Within, processes start as a script of anyone's would, if the way is plain."""
    before = os.environ.copy()
    if way.plain:
        os.environ.update(_PLAIN)
    try:
        yield
    finally:
        for name in _PLAIN:
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def _serve(channel: Connection, way: Way) -> None:
    if not way.plain:
        claim()
    torch.set_num_threads(way.threads)
    device = next(argument for argument in way.arguments if isinstance(argument, torch.device))
    try:
        way.run(Turns(channel, device, way.pieces), *way.arguments)
    except (Finished, EOFError, BrokenPipeError, KeyboardInterrupt):
        return
    except Exception as error:  # noqa: BLE001 - told to the parent, which raises it
        channel.send(f"{type(error).__name__}: {error}")

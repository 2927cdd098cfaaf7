"""The worker process: waits for jobs, answers with outcomes, dies with its parent."""

import gc
import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Generic

import torch

from atom_nas.engines._trial import one_line, run_trial
from atom_nas.engines.base import AnyJob, Outcome, Work
from distill import process
from distill.process import is_want_of_memory


@dataclass(frozen=True)
class Ready:
    """The worker's first message: it can take jobs."""


@dataclass(frozen=True)
class Broken:
    """The worker's first and last message: it cannot work, and why.

    Attributes:
        reason: why.
        starved: there is too little memory for it.
    """

    reason: str
    starved: bool


@dataclass(frozen=True)
class Result(Generic[AnyJob]):
    """The answer to a job.

    Attributes:
        outcome: what became of it.
        last: the worker ends now, as the trial has spoiled its process.
        starved: the trial failed for want of memory.
    """

    outcome: Outcome[AnyJob]
    last: bool
    starved: bool


def serve(connection: Connection, work: Work[AnyJob], device_name: str) -> None:
    """Answer each `Job` with a `Result`, until the parent is gone or a trial has spoiled the process."""
    # Ctrl-C reaches the whole process group; stopping is the parent's business, which terminates us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What a user's code prints is no output of the command's, which may be JSON.
    with suppress(OSError):  # where there is no stderr
        os.dup2(2, 1)
    _die_with_parent()
    device = torch.device(device_name)
    try:
        _prepare(device, work)
    except Exception as error:  # noqa: BLE001 - told to the parent, which raises it as one line
        connection.send(Broken(one_line(error), is_want_of_memory(error)))
        return
    connection.send(Ready())
    result = None
    while result is None or not result.last:
        _settle()
        try:
            result = Result(*run_trial(connection.recv(), work, device, caught=BaseException))
            connection.send(result)
        except (EOFError, OSError):  # a trial has closed the channel: the parent sees this process end
            os._exit(1)
        # A network in a reference cycle would count in the next trial's memory.
        gc.collect()


def _prepare(device: torch.device, work: Work[AnyJob]) -> None:
    """Make results independent of the number of workers and of what else the process has run.

    One thread always: the order of a parallel sum, hence its last bits, follows the number of threads. The
    settings are global to the process, which is the engine's own. The device and what the
    work needs are used once, so that their first use is in no trial's time.
    """
    _settle()
    torch.zeros(1, device=device).add_(1)
    work.warm_up(device)
    # What is loaded by now stays: collections after each trial need not look at it (a third of a second).
    gc.freeze()


def _settle() -> None:
    """Settings of the whole process, as every trial finds them, whatever the one before did to them."""
    process.claim()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    torch.set_grad_enabled(True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def _die_with_parent() -> None:
    """Exit as soon as the parent has ended, even by kill -9 and in the middle of a trial."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()

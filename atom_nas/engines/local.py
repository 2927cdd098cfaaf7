"""Trials in worker processes on this machine.

Workers stay warm between trials, and see the images through shared memory, never as a copy. A fork of this
process would be unsafe once torch runs threads, and impossible with CUDA. So on Linux they are forks of a
server that has loaded what they need and done nothing yet: they start at once and share what that takes,
about 400 MiB each with torch's CUDA build. Elsewhere they are spawned.
"""

import os
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import connection as channels
from multiprocessing import resource_tracker
from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any, Generic

# torch's variant teaches the pickler to pass tensors by shared memory.
import torch.multiprocessing as multiprocessing

from atom_nas.engines._worker import Broken, Ready, Result, serve
from atom_nas.engines.base import OVERDUE, AnyJob, EngineError, More, Outcome, Work
from reports.formatting import plural

_Process = SpawnProcess | ForkServerProcess
_MAX_FAILED_STARTS = 3
_STOP_SECONDS = 5.0
_WAIT_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class LocalConfig:
    """Where and how widely to run.

    Attributes:
        workers: processes, each with one thread; scores do not depend on how many there are.
        device: torch's name of the device that every worker uses.
    """

    workers: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, not {self.workers}")


class _Worker(Generic[AnyJob]):
    """One process as seen from the parent."""

    def __init__(self, process: _Process, channel: "channels.Connection[Any, Any]", *, beside: bool) -> None:
        """beside: whether others were there or about to start."""
        self.process = process
        self.beside = beside
        self.channel = channel
        self.ready = False
        self.job: AnyJob | None = None
        self.started = 0.0
        self.cpu_before: float | None = None

    def give(self, job: AnyJob) -> bool:
        """Send a job; False if the process has died meanwhile."""
        try:
            self.channel.send(job)
        except OSError:
            return False
        self.job, self.started, self.cpu_before = job, time.perf_counter(), _cpu_seconds(self.process)
        return True

    def receive(self) -> object:
        """Its next message; raises EOFError or OSError if the process has died."""
        return self.channel.recv()

    def cpu_seconds(self) -> float | None:
        """Of its job so far; None where the system does not say."""
        now = _cpu_seconds(self.process)
        return None if now is None or self.cpu_before is None else now - self.cpu_before

    def is_overdue(self) -> bool:
        """Whether its job has had the time that it may take, and no answer is there."""
        if self.job is None or self.job.limit is None:
            return False
        taken = self.job.used + time.perf_counter() - self.started
        return taken > self.job.limit and not self.channel.poll()

    def stop(self) -> None:
        self.process.terminate()
        self.process.join(_STOP_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.channel.close()


class LocalEngine(Generic[AnyJob]):
    """Runs the jobs of one kind of work. Use as a context manager, or call `close`."""

    def __init__(self, work: Work[AnyJob], config: LocalConfig) -> None:
        """Nothing starts before the first job."""
        self._work = work
        self._config = config
        self._context = _context(config.device, type(work).__module__)
        self._workers: list[_Worker[AnyJob]] = []
        self._most = config.workers
        self._failed_starts = 0
        self._pending: deque[AnyJob] = deque()
        self._lost_seconds: dict[AnyJob, float] = {}
        self._starved: deque[AnyJob] = deque()
        self._alone = False

    def run(
        self,
        jobs: Sequence[AnyJob],
        on_wait: Callable[[], None] | None = None,
        more: More[AnyJob] | None = None,
    ) -> Iterator[Outcome[AnyJob]]:
        """See `Engine.run`.

        Args:
            on_wait: called about twice a second while workers are busy, in this thread.
        Raises:
            EngineError: several workers in a row died before they could take a job.
        """
        self._pending, self._lost_seconds = deque(jobs), {}
        self._most = self._config.workers
        self._starved, self._alone = deque(), self._most == 1
        try:
            yield from self._drain(on_wait, more)
            while self._starved:
                self.close()
                self._pending, self._starved, self._alone = self._starved, deque(), True
                yield from self._drain(on_wait, None)
                self._alone = self._most == 1
                yield from self._drain(on_wait, more)
        finally:
            # Left early (an error in the caller, Ctrl-C): nobody waits for these outcomes any more.
            for worker in self._busy():
                self._drop(worker)

    def _drain(
        self, on_wait: Callable[[], None] | None, more: More[AnyJob] | None
    ) -> Iterator[Outcome[AnyJob]]:
        """All that is pending; as long as outcomes make more of it, that too."""
        while self._extended(more) or self._busy():
            self._start_missing(len(self._pending))
            self._hand_out(self._pending)
            yield from self._collect(on_wait)

    def _extended(self, more: More[AnyJob] | None) -> deque[AnyJob]:
        if more:
            self._pending.extend(more())
        return self._pending

    def close(self) -> None:
        """Terminate all workers, busy or not."""
        while self._workers:
            self._workers.pop().stop()

    def __enter__(self) -> "LocalEngine[AnyJob]":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _busy(self) -> list[_Worker[AnyJob]]:
        return [worker for worker in self._workers if worker.job is not None]

    def _start_missing(self, pending: int) -> None:
        wanted = min(1 if self._alone else self._most, pending + len(self._busy()))
        while len(self._workers) < wanted:
            self._workers.append(self._start(beside=wanted > 1))

    def _start(self, *, beside: bool) -> _Worker[AnyJob]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=serve, args=(theirs, self._work, self._config.device), daemon=True, name="trial worker"
        )
        with _interrupts_blocked(), _clear_start_errors():
            process.start()
        # With the parent's copy closed, the death of the worker reads as the end of the channel.
        theirs.close()
        return _Worker(process, ours, beside=beside)

    def _hand_out(self, pending: deque[AnyJob]) -> None:
        for worker in [each for each in self._workers if each.ready and each.job is None]:
            if not pending:
                return
            if worker.give(pending[0]):
                pending.popleft()
            else:
                self._lost(worker)

    def _collect(self, on_wait: Callable[[], None] | None) -> Iterator[Outcome[AnyJob]]:
        """Wait for a message, or for the time to call `on_wait`; yield the outcomes that are there, and
        those of jobs that take longer than they may."""
        if not self._workers:  # all were found dead when they were to be given work
            return
        by_channel = {worker.channel: worker for worker in self._workers}
        limited = any(worker.job and worker.job.limit is not None for worker in self._workers)
        for channel in channels.wait(list(by_channel), _WAIT_SECONDS if on_wait or limited else None):
            outcome = self._receive(by_channel[channel])  # type: ignore[index]
            if outcome is not None:
                yield outcome
        for worker in self._busy():
            if worker.is_overdue():
                yield self._with_lost(self._ended(worker))
        if on_wait:
            on_wait()

    def _receive(self, worker: _Worker[AnyJob]) -> Outcome[AnyJob] | None:
        try:
            message = worker.receive()
        except (EOFError, OSError):
            return self._lost(worker)
        if isinstance(message, Result):
            worker.job = None
            if message.last:
                self._drop(worker)
            if message.starved and not self._alone:
                self._put_off(message.outcome)
                return None
            return self._with_lost(message.outcome)
        if isinstance(message, Broken):
            if message.starved and worker.beside:
                self._make_do_without(worker)
                return None
            raise EngineError(f"a worker cannot start on {self._config.device}: {message.reason}")
        assert isinstance(message, Ready)
        worker.ready, self._failed_starts = True, 0
        return None

    def _make_do_without(self, worker: _Worker[AnyJob]) -> None:
        """Go on with as many workers as there is memory for."""
        self._drop(worker)
        self._most = max(1, len(self._workers))
        count = plural(self._most, "worker")
        warnings.warn(f"{self._config.device} has memory for no more than {count}", stacklevel=2)

    def _lost(self, worker: _Worker[AnyJob]) -> Outcome[AnyJob] | None:
        """Take a dead worker off the list. Its job is tried once more, since the death may not have been its
        fault: whoever frees memory kills what is largest. The outcome if that was the second time.
        """
        worker.process.join(_STOP_SECONDS)
        self._drop(worker)
        cause = _cause_of_death(worker.process.exitcode)
        job = worker.job
        if job is None:
            if not worker.ready:  # an idle one that was killed is replaced when there is work
                self._count_failed_start(cause)
            return None
        seconds = time.perf_counter() - worker.started
        if job not in self._lost_seconds:
            self._lost_seconds[job] = seconds
            self._pending.appendleft(job)
            return None
        return self._with_lost(self._failed(job, f"the worker process {cause}, twice", seconds))

    def _ended(self, worker: _Worker[AnyJob]) -> Outcome[AnyJob]:
        """End a worker whose job takes longer than it may."""
        job, seconds, cpu_seconds = worker.job, time.perf_counter() - worker.started, worker.cpu_seconds()
        assert job is not None
        self._drop(worker)
        limit = repr(float(job.limit or 0)).removesuffix(".0")  # every digit: a run that goes on reads it
        return self._failed(job, f"{OVERDUE} {limit} seconds, the limit", seconds, cpu_seconds)

    def _failed(
        self, job: AnyJob, reason: str, seconds: float, cpu_seconds: float | None = None
    ) -> Outcome[AnyJob]:
        """Of a job whose process did not report. Where its CPU time is not known, its one thread is taken to
        have been busy all the time."""
        return Outcome(
            job=job,
            reason=reason,
            scores={},
            seconds=seconds,
            cpu_seconds=seconds if cpu_seconds is None else cpu_seconds,
            peak_memory_mb=None,
            device=self._config.device.partition(":")[0],
        )

    def _put_off(self, outcome: Outcome[AnyJob]) -> None:
        """Memory was too small for it beside the others: it is tried once more when they are done, alone."""
        lost = self._lost_seconds.get(outcome.job, 0.0)
        self._lost_seconds[outcome.job] = lost + outcome.seconds
        self._starved.append(outcome.job)

    def _with_lost(self, outcome: Outcome[AnyJob]) -> Outcome[AnyJob]:
        """The outcome with the seconds of a first attempt whose worker died; its one thread was busy."""
        lost = self._lost_seconds.get(outcome.job, 0.0)
        seconds, cpu_seconds = outcome.seconds + lost, outcome.cpu_seconds + lost
        return replace(outcome, seconds=seconds, cpu_seconds=cpu_seconds) if lost else outcome

    def _count_failed_start(self, cause: str) -> None:
        self._failed_starts += 1
        if self._failed_starts >= _MAX_FAILED_STARTS:
            raise EngineError(
                f"{self._failed_starts} worker processes in a row died before their first trial (the last "
                f"one {cause}); is there enough memory for one more process, and does a script of yours that "
                'starts a search do so under `if __name__ == "__main__":`?'
            )

    def _drop(self, worker: _Worker[AnyJob]) -> None:
        if worker in self._workers:
            self._workers.remove(worker)
            worker.stop()


def _context(device: str, work: str) -> ForkServerContext | SpawnContext:
    """What starts workers on a device; `work` is the module of what they do."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # That torch's compiler leaves CUDA alone, which no fork would survive, has not been tried with a GPU.
    context.set_forkserver_preload([f"atom_nas.engines.{'_ahead' if device == 'cpu' else '_worker'}", work])
    return context


def engine(work: Work[AnyJob], **options: Any) -> LocalEngine[AnyJob]:
    """The engine with a `LocalConfig` of the given options."""
    return LocalEngine(work, LocalConfig(**options))


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start children with Ctrl-C blocked: it would hit them while they import torch, and print tracebacks."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # The tracker is started along with the first child otherwise, and unblocks the signal by itself.
    with suppress(AttributeError):
        resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _clear_start_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "shared memory" not in str(error):
            raise
        raise EngineError(
            "the images do not fit into shared memory: make /dev/shm larger (in a container: --shm-size=2g), "
            f"or use fewer real images ({error})"
        ) from error


def _cpu_seconds(process: _Process) -> float | None:
    """That a process has used so far, all its threads; None where the system does not say."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def _cause_of_death(exit_code: int | None) -> str:
    if exit_code == -signal.SIGKILL:
        return "was killed by SIGKILL (out of memory?)"
    if exit_code is not None and exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"

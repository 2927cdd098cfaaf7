"""What an engine takes and gives: jobs in, outcomes out as they finish.

An engine knows nothing of what a job is: that is between its caller, who makes the jobs, and the `Work` that
does them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch

OVERDUE = "not done after"
"""How the reason begins of a job that had the time of its limit."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A piece of work. What it consists of is in the fields that a subclass adds; no two jobs are equal.

    Attributes:
        limit: seconds after which it has failed, if its process can be ended; None: it takes what it takes.
        used: seconds of the limit that earlier jobs have taken.
    """

    limit: float | None = None
    used: float = 0.0


AnyJob = TypeVar("AnyJob", bound=Job)
_Done = TypeVar("_Done", bound=Job, contravariant=True)


class Work(Protocol[_Done]):
    """What every worker gets once: how its jobs are done. Picklable; its tensors go to shared memory."""

    def warm_up(self, device: torch.device) -> None:
        """Use once, before any job, what is slow at its first use."""
        ...

    def scores(self, job: _Done, device: torch.device) -> Mapping[str, float]:
        """Do a job; whatever it raises is the reason why the job failed."""
        ...


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[AnyJob]):
    """What became of a job.

    Attributes:
        job: the job.
        reason: why it failed, one line; None if it is done.
        scores: name -> finite number; empty if it failed.
        seconds, cpu_seconds: of the trial, and of an earlier attempt at it whose worker died.
        peak_memory_mb: MiB; None if unknown.
        device: "cpu", "cuda", ...
    """

    job: AnyJob
    reason: str | None
    scores: Mapping[str, float]
    seconds: float
    cpu_seconds: float
    peak_memory_mb: float | None
    device: str


More = Callable[[], Sequence[AnyJob]]


class Engine(Protocol[AnyJob]):
    """Runs jobs; each failure is one outcome with a reason, never an exception."""

    def run(
        self,
        jobs: Sequence[AnyJob],
        on_wait: Callable[[], None] | None = None,
        more: More[AnyJob] | None = None,
    ) -> Iterator[Outcome[AnyJob]]:
        """Yield the outcome of every job as it finishes, in any order.

        Args:
            on_wait: called now and then while jobs run.
            more: gives the jobs that have come up since it was called last; called at the start and after
                each outcome. Without any, and once all jobs are done, the run ends.
        Raises:
            EngineError: the engine itself cannot work.
        """
        ...

    def close(self) -> None:
        """Stop everything promptly; calling it again changes nothing."""
        ...


class EngineError(RuntimeError):
    """Workers cannot even start: a fault of the installation or the machine, not of an architecture."""

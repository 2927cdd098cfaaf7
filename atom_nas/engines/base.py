"""What an engine takes and gives: jobs in, outcomes out as they finish."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from atom_nas.estimators.base import Estimator
from atom_nas.leg import Leg


class Builder(Protocol):
    """Builds an architecture from its string form; a picklable value, since workers get a copy.

    The network is freshly initialised from torch's global generator, which the trial seeds.
    """

    def __call__(self, architecture: str) -> nn.Module: ...


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What every worker needs once.

    Attributes:
        build: makes a network of an architecture's string form.
        estimators: score it; their tensors go to shared memory. A job says which of them it is for.
        image_shape: (C, H, W), for counting operations.
    """

    build: Builder
    estimators: tuple[Estimator, ...]
    image_shape: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One architecture to score.

    Attributes:
        estimator: the name of one of the workload's estimators.
        architecture: its string form.
        seed: of everything random in the trial.
        leg: the part of the training that is asked for; None: all of it.
    """

    estimator: str
    architecture: str
    seed: int
    leg: Leg | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: the job.
        reason: why it failed, one line; None if it is done.
        scores: name -> finite number; empty if it failed.
        seconds, cpu_seconds: of the trial, and of an earlier attempt at it whose worker died.
        peak_memory_mb: MiB; None if unknown.
        device: "cpu", "cuda", ...
    """

    job: Job
    reason: str | None
    scores: Mapping[str, float]
    seconds: float
    cpu_seconds: float
    peak_memory_mb: float | None
    device: str


class Engine(Protocol):
    """Runs jobs; each failure is one outcome with a reason, never an exception."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Yield the outcome of every job as it finishes, in any order.

        Raises:
            EngineError: the engine itself cannot work.
        """
        ...

    def close(self) -> None:
        """Stop everything promptly; calling it again changes nothing."""
        ...


class EngineError(RuntimeError):
    """Workers cannot even start: a fault of the installation or the machine, not of an architecture."""

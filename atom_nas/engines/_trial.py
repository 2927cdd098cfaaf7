"""One trial, inside a worker; every failure becomes an outcome."""

import math
import time
from collections.abc import Mapping

import torch

from atom_nas.engines.base import AnyJob, Outcome, Work
from distill import graphs
from distill.environment import begin_measuring, memory_used_mb
from distill.process import is_want_of_memory
from search_spaces.foreign import lines_of

_MAX_REASON = 300


def run_trial(
    job: AnyJob, work: Work[AnyJob], device: torch.device, *, caught: type[BaseException] = Exception
) -> tuple[Outcome[AnyJob], bool, bool]:
    """Run one job.

    Args:
        caught: what is a result about the architecture when it raises it; a process of its own, which nobody
            interrupts, has `BaseException`.
    Returns:
        Its outcome; whether this process should not be trusted with another one: an exhausted memory stays
        fragmented, a CUDA error may leave the device unusable for the process, and so may a recording that
        failed; whether it failed for want of memory.
    """
    before = begin_measuring(device)
    wall, cpu = time.perf_counter(), time.process_time()
    scores: Mapping[str, float] = {}
    reason, spoiled, starved = None, False, False
    try:
        scores = _scores(job, work, device)
    except caught as error:
        reason, spoiled = one_line(error), _spoils(error, device)
        starved = is_want_of_memory(error)
    outcome = Outcome(
        job=job,
        reason=reason,
        scores=scores,
        seconds=time.perf_counter() - wall,
        cpu_seconds=time.process_time() - cpu,
        peak_memory_mb=memory_used_mb(device, before),
        device=device.type,
    )
    return outcome, spoiled or graphs.broken(), starved


def one_line(error: BaseException) -> str:
    """The kind of error and the first line of its message, at most a few hundred characters."""
    return ": ".join([type(error).__name__, *lines_of(error)[:1]])[:_MAX_REASON]


def _scores(job: AnyJob, work: Work[AnyJob], device: torch.device) -> Mapping[str, float]:
    scores = work.scores(job, device)
    for name, value in scores.items():
        if not math.isfinite(value):
            raise FloatingPointError(f"{name} is {value}")
    return scores


def _spoils(error: BaseException, device: torch.device) -> bool:
    return isinstance(error, MemoryError) or (device.type == "cuda" and isinstance(error, RuntimeError))

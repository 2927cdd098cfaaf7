"""One trial, inside a worker: build, count, train, score; every failure becomes an outcome."""

import math
import time
from collections.abc import Mapping

import torch

from atom_nas.engines.base import Job, Outcome, Workload
from atom_nas.estimators.measure import network_costs
from distill.environment import begin_measuring, memory_used_mb

_MAX_REASON = 300


def run_trial(job: Job, workload: Workload, device: torch.device) -> tuple[Outcome, bool, bool]:
    """Run one job.

    Returns:
        Its outcome; whether this process should not be trusted with another one: an exhausted memory stays
        fragmented, and a CUDA error may leave the device unusable for the process; whether it failed for
        want of memory.
    """
    before = begin_measuring(device)
    wall, cpu = time.perf_counter(), time.process_time()
    scores: Mapping[str, float] = {}
    reason, spoiled, starved = None, False, False
    try:
        scores = _scores(job, workload, device)
    except Exception as error:  # noqa: BLE001 - whatever an architecture does is a result about it
        reason, spoiled = one_line(error), _spoils(error, device)
        starved = isinstance(error, MemoryError | torch.cuda.OutOfMemoryError)
    outcome = Outcome(
        job=job,
        reason=reason,
        scores=scores,
        seconds=time.perf_counter() - wall,
        cpu_seconds=time.process_time() - cpu,
        peak_memory_mb=memory_used_mb(device, before),
        device=device.type,
    )
    return outcome, spoiled, starved


def one_line(error: BaseException) -> str:
    """The kind of error and the first line of its message, at most a few hundred characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *lines[:1]])[:_MAX_REASON]


def _scores(job: Job, workload: Workload, device: torch.device) -> dict[str, float]:
    cuda = [torch.cuda.current_device()] if device.type == "cuda" else []
    estimator = next(each for each in workload.estimators if each.name == job.estimator)
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(job.seed)
        network = workload.build(job.architecture)
        costs = network_costs(network, workload.image_shape)
        scores = estimator.score(network, seed=job.seed, device=device, leg=job.leg) | costs
    for name, value in scores.items():
        if not math.isfinite(value):
            raise FloatingPointError(f"{name} is {value}")
    return scores


def _spoils(error: Exception, device: torch.device) -> bool:
    return isinstance(error, MemoryError) or (device.type == "cuda" and isinstance(error, RuntimeError))

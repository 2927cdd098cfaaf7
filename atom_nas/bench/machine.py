"""What the machine itself does: matrix products, and workers side by side."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from atom_nas import estimators
from atom_nas.bench.ways import Scale, problem
from atom_nas.building import SpaceBuilder
from atom_nas.engines.base import Outcome
from atom_nas.engines.local import LocalConfig, LocalEngine
from atom_nas.estimators.base import SearchData
from atom_nas.search_plan import default_workers
from atom_nas.workload import TrialJob, Workload
from distill.training import TrainingConfig

CPU = torch.device("cpu")
JOBS_A_WORKER = 4
ROUNDS = 5
_SAMPLE_SECONDS = 0.5  # adding up a large process takes tens of milliseconds of its time
_GEMM = """
import sys, time, torch
torch.set_num_threads(int(sys.argv[1]))
if sys.argv[3] != "cpu":  # convolutions round so by default there
    torch.set_float32_matmul_precision("high")
kind, size = getattr(torch, sys.argv[2]), int(sys.argv[4])
a, b = (torch.randn(size, size, dtype=kind, device=sys.argv[3]) for _ in range(2))
times = []
for _ in range(9):
    start = time.perf_counter()
    product = a @ b
    product[0, 0].item()
    times.append(time.perf_counter() - start)
print(2 * size**3 / sorted(times)[4] / 1e9)
"""


def gemm_rate(kind: str, device: torch.device, threads: int, size: int | None = None) -> float | None:
    """GFLOP/s of a square matrix product; None where it fails.

    Of 2,048 rows on a CPU, 8,192 on a GPU, where float32 is TF32 if the device has that.

    In a process of its own: some processors end it with an illegal instruction in bfloat16.
    """
    size = size or (8192 if device.type == "cuda" else 2048)
    command = [sys.executable, "-c", _GEMM, str(threads), kind, str(device), str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else None


def scaling(
    architecture: str, scale: Scale, device: torch.device = CPU, *, cores: int | None = None
) -> dict[str, Any]:
    """The same trials on one worker and on as many as a search takes: wall seconds, memory, whether scores
    are the same.

    The two take turns; the median ratio of a turn counts. Memory is that of all processes at its highest,
    shared pages once, in a turn of its own: to add it up takes a core's time.
    """
    count = cores or default_workers(device)
    workload = proxy_workload(scale, epochs=10 if device.type == "cpu" else 300)
    jobs = [
        TrialJob(estimator="proxy", architecture=architecture, seed=seed)
        for seed in range(JOBS_A_WORKER * count)
    ]
    seconds: dict[int, list[float]] = {1: [], count: []}
    scores = []
    for _ in range(ROUNDS):
        for workers, each in seconds.items():
            spent, outcomes = timed(workload, jobs, workers, device)
            each.append(spent)
            scores.append(_scores(outcomes))
    memory = {workers: _watched(partial(timed, workload, jobs, workers, device)) for workers in seconds}
    more = count - 1
    return {
        "seconds": {str(workers): median(each) for workers, each in seconds.items()},
        "speedup": median(alone / many for alone, many in zip(seconds[1], seconds[count], strict=True)),
        "identical": all(each == scores[0] for each in scores),
        "memory_mb": {str(workers): each for workers, each in memory.items()},
        "memory_mb_a_worker": (memory[count] - memory[1]) / more if more else None,
        "overhead_ms": _overhead(workload, architecture, device),
    }


def proxy_workload(scale: Scale, epochs: int = 10) -> Workload:
    """Proxy trials of some epochs on random images."""
    posed = problem(torch.device("cpu"), scale)
    chosen = torch.arange(len(posed.real))[:: max(1, len(posed.real) // (scale.classes * scale.ipc))]
    data = SearchData(
        synthetic_images=posed.prepare(chosen),
        synthetic_labels=posed.real.labels[chosen],
        fit=posed.real,
        validation=posed.real,
        test=posed.real,
        preprocessing=posed.preprocessing,
        classes=scale.classes,
    )
    build = SpaceBuilder(space="convnet", options={}, image_shape=scale.image_shape, classes=scale.classes)
    estimator = estimators.load("proxy").estimator(data, training=TrainingConfig(epochs=epochs))
    return Workload(build=build, estimators=(estimator,), image_shape=scale.image_shape)


def timed(
    workload: Workload, jobs: Sequence[TrialJob], workers: int, device: torch.device = CPU
) -> tuple[float, list[Outcome[TrialJob]]]:
    """Wall seconds of the jobs on workers that are warm, and what became of them."""
    with LocalEngine(workload, LocalConfig(workers=workers, device=str(device))) as engine:
        list(engine.run(jobs[:workers]))  # starts and warms the workers
        start = time.perf_counter()
        outcomes = list(engine.run(jobs))
        return time.perf_counter() - start, outcomes


def _overhead(workload: Workload, architecture: str, device: torch.device) -> float:
    """Milliseconds that a trial on a warm worker takes beyond what it measures itself, the median of some."""
    job = TrialJob(estimator="proxy", architecture=architecture, seed=0)
    found = []
    with LocalEngine(workload, LocalConfig(workers=1, device=str(device))) as engine:
        list(engine.run([job]))
        for _ in range(5):
            start = time.perf_counter()
            (outcome,) = engine.run([job])
            found.append(time.perf_counter() - start - outcome.seconds)
    return 1e3 * sorted(found)[2]


def _scores(outcomes: Sequence[Outcome[TrialJob]]) -> dict[int, Mapping[str, float]]:
    return {outcome.job.seed: outcome.scores for outcome in outcomes}


def _watched(work: Callable[[], object]) -> float:
    """The most MiB that we and our children held during the work (on Linux; else 0)."""
    highest, over = 0.0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not over.wait(_SAMPLE_SECONDS):
            highest = max(highest, _memory_mb())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        work()
    finally:
        over.set()
        watcher.join()
    return highest


def _memory_mb() -> float:
    return sum(map(_proportional_mb, _family(Path("/proc/self"))))


def _family(process: Path) -> list[Path]:
    """A process, its children, theirs, ..."""
    family = [process]
    for listed in process.glob("task/*/children"):
        with suppress(OSError):
            for number in listed.read_text().split():
                family += _family(Path("/proc") / number)
    return family


def _proportional_mb(process: Path) -> float:
    """A process's memory, of shared pages its share."""
    with suppress(OSError):
        for line in (process / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return float(line.split()[1]) / 1024
    return 0.0

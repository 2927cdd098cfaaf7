"""`atom-nas bench`: what this machine makes of our loops, beside what a straightforward script would do.

All of it runs on random images of CIFAR-10's shape, in one go. Ways that are compared take turns, and medians
are reported, since a machine's speed changes from minute to minute.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import search_spaces
from atom_nas import estimators
from atom_nas.engines.base import Job, Outcome, Workload
from atom_nas.engines.local import LocalConfig, LocalEngine
from atom_nas.estimators.base import SearchData
from atom_nas.runner import SpaceBuilder
from distill import kernels, methods
from distill.acceleration import why_not_compile
from distill.augment import draw, parse_strategy
from distill.data import Split
from distill.environment import describe, usable_cores
from distill.matching import matching_loss
from distill.matching import statistics as class_statistics
from distill.methods.base import Problem
from distill.networks import convnet, fitting_depth
from distill.precision import Precision, autocast, runs_bfloat16
from distill.preprocessing import fit_preprocessing
from distill.seeding import stream
from distill.session import Session, State
from distill.training import TrainingConfig, accelerated

IMAGE_SHAPE = (3, 32, 32)
CLASSES = 10
IPC = 10
BATCH_REAL = 64
BATCH = 100
METHODS = ("atom", "datadam", "dm")
ARCHITECTURES = (
    "w128-d3-instance-relu-avg",
    "w64-d3-batch-relu-max",
    "w256-d3-none-leaky_relu-max",
    "w128-d2-group-sigmoid-avg",
    "w32-d2-layer-relu-avg",
)
SCALING_JOBS = 4  # a multiple of the workers, so that none idles at the end
_GEMM = """
import sys, time, torch
from torch import nn
torch.set_num_threads(int(sys.argv[1]))
kind, size = getattr(torch, sys.argv[2]), 2048
a, b = (torch.randn(size, size, dtype=kind, device=sys.argv[3]) for _ in range(2))
times = []
for _ in range(8):
    start = time.perf_counter()
    product = a @ b
    product[0, 0].item()
    times.append(time.perf_counter() - start)
print(2 * size**3 / sorted(times)[2] / 1e9)
"""

Step = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Ways:
    """Median seconds of one thing done in several ways; the first is the straightforward one."""

    what: str
    seconds: Mapping[str, float]

    def ratio(self, way: str) -> float:
        """How many times faster than the straightforward way."""
        return next(iter(self.seconds.values())) / self.seconds[way]


def bench(
    device: torch.device, *, repeats: int = 7, iterations: int = 5, tell: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Measure everything; JSON values.

    Args:
        device: where to compute; workers are measured on a CPU only.
        repeats: training steps a way and architecture, of which the median counts.
        iterations: distillation iterations a way and method, likewise.
        tell: told in a few words what is being measured.
    """
    say = tell or (lambda _: None)
    result: dict[str, Any] = {
        "environment": describe(),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "kernels": kernels.why_unavailable() or "fused",
        "compiler": why_not_compile(device.type) or "works",
    }
    say("matrix products")
    result["gemm_gflops"] = {kind: gemm_rate(kind, device) for kind in ("float32", "bfloat16")}
    result["proxy_image_step"] = []
    for architecture in ARCHITECTURES:
        say(f"training steps of {architecture}")
        result["proxy_image_step"].append(_as_json(proxy_step(architecture, device, repeats)))
    result["distillation_iteration"] = []
    for method in METHODS:
        say(f"iterations of {method}")
        result["distillation_iteration"].append(_as_json(iteration(method, device, iterations)))
    if device.type == "cpu":
        say("workers")
        result["workers"] = scaling()
    return result


def gemm_rate(kind: str, device: torch.device) -> float | None:
    """GFLOP/s of a square matrix product; None where it fails.

    In a process of its own: some processors end it with an illegal instruction in bfloat16.
    """
    command = [sys.executable, "-c", _GEMM, str(torch.get_num_threads()), kind, str(device)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else None


def proxy_step(architecture: str, device: torch.device, repeats: int) -> Ways:
    """Seconds an image of a training step on one thread, forward, backward and update, batch 100."""
    generator = stream(0, "bench", architecture)
    images = torch.randn(BATCH, *IMAGE_SHAPE, generator=generator).to(device)
    labels = (torch.arange(BATCH) % CLASSES).to(device)
    steps = {
        "straightforward": _stepper(_network(architecture).to(device), images, labels, "float32"),
        "float32": _fast_stepper(architecture, images, labels, "float32"),
    }
    if runs_bfloat16(device.type):
        steps["bfloat16"] = _fast_stepper(architecture, images, labels, "bfloat16")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = _take_turns(steps, repeats, device)
    finally:
        torch.set_num_threads(threads)
    return Ways(what=architecture, seconds={way: value / BATCH for way, value in seconds.items()})


def _network(architecture: str) -> nn.Module:
    space = search_spaces.load("convnet")
    return space.build(space.parse(architecture), IMAGE_SHAPE, CLASSES)


def _fast_stepper(architecture: str, images: Tensor, labels: Tensor, precision: Precision) -> Step:
    network = _network(architecture).to(images.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = images.contiguous(memory_format=torch.channels_last)
    return _stepper(accelerated(network, images.device), images, labels, precision)


def _stepper(network: nn.Module, images: Tensor, labels: Tensor, precision: Precision) -> Step:
    optimizer = torch.optim.SGD(network.train().parameters(), 0.01, 0.9, weight_decay=5e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(images.device, precision):
            logits = network(images)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


def iteration(method: str, device: torch.device, iterations: int) -> Ways:
    """Seconds of a distillation iteration on all threads: 10 classes of 10 synthetic and 64 real images."""
    problem = _problem(device)
    seconds = {"straightforward": _median(_plain_iterations(method, problem, iterations))}
    ways: dict[str, dict[str, Any]] = {"eager": {"compile": False}}
    if why_not_compile(device.type) is None:
        ways["compiled"] = {"compile": True}
        if runs_bfloat16(device.type):
            ways["compiled, bfloat16"] = {"compile": True, "precision": "bfloat16"}
    for way, options in ways.items():
        seconds[way] = _median(_engine_iterations(method, problem, iterations, options))
    # The straightforward way again, at the other end of the turn: the mean of both counts.
    again = _median(_plain_iterations(method, problem, iterations))
    seconds["straightforward"] = (seconds["straightforward"] + again) / 2
    return Ways(what=method, seconds=seconds)


class _Stopwatch(Session):
    """Notes when each iteration ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def after(self, state: State, total: int) -> None:  # noqa: ARG002
        if state.images.is_cuda:
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def _engine_iterations(
    method: str, problem: Problem, iterations: int, options: Mapping[str, Any]
) -> list[float]:
    module = methods.load(method)
    watch = _Stopwatch()
    module.distill(problem, module.Config(iterations=iterations + 2, **options), watch)
    # The first two compile and warm up.
    return [end - start for start, end in zip(watch.ends[1:], watch.ends[2:], strict=False)]


def _plain_iterations(method: str, problem: Problem, iterations: int) -> list[float]:
    """A new network every iteration, one class after the other, eager float32: as the public scripts do."""
    weights, names = methods.load(method).Config().weights, parse_strategy("dsa")
    images = torch.randn(CLASSES * IPC, *IMAGE_SHAPE, generator=stream(0, "bench")).to(problem.device)
    seconds = []
    for number in range(iterations + 1):
        start = time.perf_counter()
        generator = stream(0, "bench", method, number)
        network = convnet(IMAGE_SHAPE, CLASSES, depth=fitting_depth(IMAGE_SHAPE), generator=generator)
        network.to(problem.device)
        images.requires_grad_(True)
        loss = torch.zeros((), device=problem.device)
        for k, pool in enumerate(problem.pools()):
            real = problem.prepare(pool[torch.randperm(len(pool), generator=generator)[:BATCH_REAL]])
            augment = draw(names, generator)
            with torch.no_grad():
                target = class_statistics(
                    *network.features(augment(real.to(problem.device))), classes=1, weights=weights
                )
            source = class_statistics(
                *network.features(augment(images[k * IPC : (k + 1) * IPC])), classes=1, weights=weights
            )
            loss = loss + matching_loss(target, source, weights=weights).total
        (gradient,) = torch.autograd.grad(loss, images)
        images = (images.detach() - gradient).detach()
        images[0, 0, 0, 0].item()  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def _problem(device: torch.device) -> Problem:
    labels = torch.arange(CLASSES).repeat_interleave(2 * BATCH_REAL)
    pixels = torch.randint(
        0, 256, (len(labels), *IMAGE_SHAPE), dtype=torch.uint8, generator=stream(0, "bench pixels")
    )
    return Problem(
        real=Split(pixels, labels),
        classes=tuple(map(str, range(CLASSES))),
        preprocessing=fit_preprocessing(pixels, zca=False),
        ipc=IPC,
        seed=0,
        device=device,
    )


def scaling() -> dict[str, Any]:
    """Wall seconds of the same trials on one worker and on all cores, and whether all scores are the same."""
    problem = _problem(torch.device("cpu"))
    data = SearchData(
        synthetic_images=problem.prepare(torch.arange(len(problem.real))[:: 2 * BATCH_REAL // IPC]),
        synthetic_labels=problem.real.labels[:: 2 * BATCH_REAL // IPC],
        fit=problem.real,
        validation=problem.real,
        test=problem.real,
        preprocessing=problem.preprocessing,
        classes=CLASSES,
    )
    build = SpaceBuilder(space="convnet", options={}, image_shape=IMAGE_SHAPE, classes=CLASSES)
    estimator = estimators.load("proxy").estimator(data, training=TrainingConfig(epochs=20))
    workload = Workload(build=build, estimators=(estimator,), image_shape=IMAGE_SHAPE)
    cores = usable_cores()
    jobs = [
        Job(estimator="proxy", architecture=ARCHITECTURES[0], seed=seed)
        for seed in range(SCALING_JOBS * cores)
    ]
    runs = {workers: _timed(workload, jobs, workers) for workers in sorted({1, cores})}
    alone, together = runs[1], runs[cores]
    return {
        "seconds": {str(workers): seconds for workers, (seconds, _) in runs.items()},
        "speedup": alone[0] / together[0],
        "identical": _scores(alone[1]) == _scores(together[1]),
        "peak_memory_mb": max(outcome.peak_memory_mb or 0.0 for outcome in together[1]),
    }


def _timed(workload: Workload, jobs: Sequence[Job], workers: int) -> tuple[float, list[Outcome]]:
    with LocalEngine(workload, LocalConfig(workers=workers)) as engine:
        list(engine.run(jobs[:workers]))  # starts and warms the workers
        start = time.perf_counter()
        outcomes = list(engine.run(jobs))
        return time.perf_counter() - start, outcomes


def _scores(outcomes: Sequence[Outcome]) -> dict[int, Mapping[str, float]]:
    return {outcome.job.seed: outcome.scores for outcome in outcomes}


def _take_turns(steps: Mapping[str, Step], repeats: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each, after one unmeasured turn."""
    seconds: dict[str, list[float]] = {way: [] for way in steps}
    for turn in range(repeats + 1):
        for way, step in steps.items():
            start = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:
                seconds[way].append(time.perf_counter() - start)
    return {way: _median(values) for way, values in seconds.items()}


def _median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


def _as_json(ways: Ways) -> dict[str, Any]:
    return {
        "what": ways.what,
        "seconds": dict(ways.seconds),
        "ratio": {way: ways.ratio(way) for way in ways.seconds},
    }


def table(rows: Sequence[Mapping[str, Any]], unit: str, factor: float) -> tuple[list[str], list[list[str]]]:
    """Ways as a table: times in `unit` (seconds x factor) and, in brackets, how many times faster."""
    names = list(rows[0]["seconds"])
    cells = [
        [f"{factor * row['seconds'][name]:.3g} {unit} ({row['ratio'][name]:.1f}x)" for name in names]
        for row in rows
    ]
    return ["", *names], [[row["what"], *line] for row, line in zip(rows, cells, strict=True)]

"""How cost grows with classes, images and architectures, each up to eight times what it was."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from atom_nas.bench import machine, ways
from atom_nas.bench.turns import Way, take_turns
from atom_nas.bench.ways import Scale
from atom_nas.workload import TrialJob
from distill.environment import usable_cores

FACTORS = (1, 2, 4, 8)
SMALLEST = Scale(classes=5, ipc=5, batch_real=32, batch=50)
"""What is multiplied; an eighth of the largest."""
EPOCHS = 4


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Median seconds of one kind of work at several sizes.

    Attributes:
        work, of: what is done, and what there is more and more of.
        sizes, seconds: one a factor.
        deviation: the largest distance from the straight line that fits best, as a share of its value there.
    """

    work: str
    of: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    deviation: float


def measure_growth(
    method: str,
    architecture: str,
    device: torch.device,
    repeats: int,
    *,
    smallest: Scale = SMALLEST,
    tell: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Measure them one after the other; JSON values, see `Growth`."""
    found = []
    for of, name in (
        ("classes", "classes"),
        ("synthetic images a class", "ipc"),
        ("real images a class", "batch_real"),
    ):
        tell(f"growth with {of}")
        scales = [replace(smallest, **{name: factor * getattr(smallest, name)}) for factor in FACTORS]
        compared = {factor: _iteration(method, device, scale) for factor, scale in _numbered(scales)}
        sizes = [int(getattr(scale, name)) for scale in scales]
        found.append(_measured("a distillation iteration", of, sizes, compared, repeats))
    tell("growth with training images")
    sizes = [factor * smallest.batch for factor in FACTORS]
    compared = {name: _epoch(architecture, device, size, smallest) for name, size in _numbered(sizes)}
    found.append(_measured("an epoch of training", "training images", sizes, compared, repeats))
    if device.type == "cpu":
        tell("growth with architectures")
        found.append(_search(architecture, smallest))
    return [asdict(each) for each in found]


def _numbered(values: Sequence[Any]) -> list[tuple[str, Any]]:
    return [(f"{factor}x", value) for factor, value in zip(FACTORS, values, strict=True)]


def _iteration(method: str, device: torch.device, scale: Scale) -> Way:
    # Compiling would be done for every size.
    return Way(ways.match, (method, device, scale, {"compile": False}), threads=torch.get_num_threads())


def _epoch(architecture: str, device: torch.device, images: int, scale: Scale) -> Way:
    return Way(ways.epoch, (architecture, device, images, scale), threads=1)


def _measured(work: str, of: str, sizes: Sequence[int], compared: Mapping[str, Way], repeats: int) -> Growth:
    seconds = [statistics.median(turns) for turns in take_turns(compared, repeats).values()]
    return _grown(work, of, sizes, seconds)


def _search(architecture: str, scale: Scale) -> Growth:
    """A number of trials on as many workers as there are cores, the median of some runs."""
    workers = usable_cores()
    workload = machine.proxy_workload(scale, epochs=EPOCHS)
    sizes = [factor * workers for factor in FACTORS]
    rounds = [
        [machine.timed(workload, _jobs(architecture, size), workers)[0] for size in sizes]
        for _ in range(machine.ROUNDS)
    ]
    seconds = [statistics.median(each) for each in zip(*rounds, strict=True)]
    return _grown(f"a search on {workers} workers", "architectures", sizes, seconds)


def _jobs(architecture: str, count: int) -> list[TrialJob]:
    return [TrialJob(estimator="proxy", architecture=architecture, seed=seed) for seed in range(count)]


def _grown(work: str, of: str, sizes: Sequence[int], seconds: Sequence[float]) -> Growth:
    return Growth(
        work=work,
        of=of,
        sizes=tuple(sizes),
        seconds=tuple(seconds),
        deviation=deviation_from_line(sizes, seconds),
    )


def deviation_from_line(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """The largest relative distance from the line of least relative squares, a + b * size."""
    x, y = np.asarray(sizes, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
    slope, start = np.polyfit(x, y, 1, w=1 / y)
    return float(np.max(np.abs(y / (start + slope * x) - 1)))


def table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Seconds at every size, and the distance from a straight line."""
    header = ["", *(f"{factor}x" for factor in FACTORS), "from a line"]
    return header, [
        [
            f"{row['work']}, {row['sizes'][0]} to {row['sizes'][-1]} {row['of']}",
            *(f"{value:.3g} s" for value in row["seconds"]),
            f"{row['deviation']:.0%}",
        ]
        for row in rows
    ]

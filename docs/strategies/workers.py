"""How long successive halving and ASHA take on several workers, by the seconds that networks took elsewhere.

    python docs/strategies/workers.py docs/ranking/convnets-random.csv --samples 48 144

Nothing is trained: an architecture's training takes the `cpu_seconds` of its row, in proportion to the
epochs, and is worth its `validation_accuracy` at every rung. Where there are fewer rows than architectures,
they are drawn with replacement. For each number of workers the medians over draws: the seconds from the first
training to the last, and those of training.
"""

import argparse
import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from atom_nas.asha import Race, Step
from atom_nas.strategies import AshaConfig, HalvingConfig

EPOCHS = 90
WORKERS = (1, 2, 4, 8, 16)
SLOTS = (16, 32, 64)


@dataclass(frozen=True)
class Took:
    """Seconds from the beginning to the end, and of training."""

    wall: float
    work: float


class Clock:
    """Jobs on so many workers, each taken up by the first that is free."""

    def __init__(self, workers: int) -> None:
        self._free = workers
        self._pending: deque[tuple[Step, float]] = deque()
        self._running: list[tuple[float, Step]] = []
        self.now, self.work = 0.0, 0.0

    def give(self, step: Step, seconds: float) -> None:
        """One more job, at the end of the queue."""
        self._pending.append((step, seconds))
        self._start()

    def next(self) -> Step:
        """Go on to the end of the job that ends first."""
        self.now, step = heapq.heappop(self._running)
        self._free += 1
        self._start()
        return step

    def _start(self) -> None:
        while self._free and self._pending:
            step, seconds = self._pending.popleft()
            self._free, self.work = self._free - 1, self.work + seconds
            heapq.heappush(self._running, (self.now + seconds, step))


def halving(seconds: Mapping[str, float], worth: Mapping[str, float], workers: int) -> Took:
    """As `atom_nas.halving`: rung by rung, the longest trainings first once it is known which they are."""
    config, clock, names, before = HalvingConfig(), Clock(workers), list(seconds), 0
    for rung, epochs in enumerate(config.epochs(EPOCHS)):
        for name in names:
            clock.give(Step(rung, name), seconds[name] * (epochs - before) / EPOCHS)
        for _ in names:
            clock.next()
        best = sorted(names, key=lambda name: -worth[name])[: config.promoted(len(names))]
        names, before = sorted(best, key=lambda name: -seconds[name]), epochs
    return Took(clock.now, clock.work)


def asha(seconds: Mapping[str, float], worth: Mapping[str, float], workers: int, slots: int) -> Took:
    """As `atom_nas.asha` runs a race."""
    config, clock, done = AshaConfig(slots=slots), Clock(workers), set()
    race = Race(config, config.epochs(EPOCHS), list(seconds))

    def begin() -> None:
        for step in race.begin():
            clock.give(step, seconds[step.network] * race.lengths[step.rung] / EPOCHS)

    begin()
    while race.awaited() is not None:
        done.add(clock.next())
        while (step := race.awaited()) in done:
            race.end(worth[step.network])
            begin()
    return Took(clock.now, clock.work)


def drawn(table: pd.DataFrame, samples: int, seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds and worth of so many architectures by new names."""
    generator = np.random.default_rng(seed)
    rows = generator.choice(len(table), samples, replace=samples > len(table))
    names = [f"{number}" for number in range(samples)]
    seconds = dict(zip(names, table["cpu_seconds"].to_numpy()[rows], strict=True))
    # No two are worth the same: equals would go on in the order of proposal.
    noise = generator.normal(0, 1e-6, samples)
    return seconds, dict(zip(names, table["validation_accuracy"].to_numpy()[rows] + noise, strict=True))


def compared(table: pd.DataFrame, samples: int, draws: int) -> pd.DataFrame:
    """A row for each way and number of workers."""
    ways = {"successive-halving": halving}
    ways |= {f"asha, {n} slots": lambda s, w, k, n=n: asha(s, w, k, n) for n in SLOTS}
    rows = []
    for name, way in ways.items():
        for workers in WORKERS:
            took: Sequence[Took] = [way(*drawn(table, samples, seed), workers) for seed in range(draws)]
            wall, work = (float(np.median([getattr(t, part) for t in took])) for part in ("wall", "work"))
            rows.append((samples, name, workers, wall, work))
    return pd.DataFrame(rows, columns=["samples", "strategy", "workers", "wall", "work"])


def main() -> None:
    """The table on the terminal, a column for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--samples", type=int, nargs="+", default=[48])
    parser.add_argument("--draws", type=int, default=30)
    options = parser.parse_args()
    table = pd.read_csv(options.table)
    found = pd.concat([compared(table, samples, options.draws) for samples in options.samples])
    for value in ("wall", "work"):
        print(value)
        print(found.pivot_table(value, ["samples", "strategy"], "workers", sort=False).round(1))


if __name__ == "__main__":
    main()

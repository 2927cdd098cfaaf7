"""Successive halving: architectures train a few epochs, the best go on, the last few to the end.

Every rung's trials are stored under a name of their own, so an interrupted search goes on where it was. When
all rungs are done each architecture gets one trial as in any other search, with all that it cost.
"""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from atom_nas.leg import Leg
from atom_nas.run_folder import CHECKPOINTS
from atom_nas.runner import Stage
from atom_nas.strategies import HalvingConfig
from atom_nas.trials import Trial, TrialStore
from search_spaces.base import Architecture

PLACE = "halving_place"
"""The score that ranks: the rung an architecture reached, and the share of that rung's that it beat there."""
EPOCHS = "trained_epochs"


@dataclass(frozen=True)
class Rung:
    """How many epochs are done at its end, and the name that its trials are stored under."""

    epochs: int

    @property
    def stored_as(self) -> str:
        return f"proxy after {self.epochs} epochs"


class Halving:
    """What a strategy's proposals are answered from, all of them at once.

    Args:
        config: how many go on.
        epochs: of a whole training.
        score: the recorded score by which they go on.
        folder: of the run.
        store: its trials.
        stage: makes the stage of a rung for so many architectures.
    """

    def __init__(
        self,
        config: HalvingConfig,
        *,
        epochs: int,
        score: str,
        folder: Path,
        store: TrialStore,
        stage: Callable[[Rung, int, Callable[[str], Leg]], Stage],
    ) -> None:
        self._config, self._score, self._store, self._stage = config, score, store, stage
        self._rungs = [Rung(each) for each in config.epochs(epochs)]
        self._checkpoints = folder / CHECKPOINTS

    def evaluate(self, architectures: Sequence[Architecture]) -> list[float | None]:
        """Each one's place, higher is better, or None where it failed."""
        names = list(dict.fromkeys(map(str, architectures)))
        positions = {name: position for position, name in enumerate(names)}
        ends: dict[str, list[Trial]] = {name: [] for name in names}
        places: dict[str, float] = {}
        running = names
        for number, rung in enumerate(self._rungs):
            stage = self._stage(rung, len(running), partial(self._leg, rung))
            stage.ensure({name: positions[name] for name in running})
            trials = {name: self._stored(rung, name) for name in running}
            for name, trial in trials.items():
                ends[name].append(trial)
            worths = {name: trial.worth(self._score) for name, trial in trials.items()}
            values = {name: worth for name, worth in worths.items() if worth is not None}
            places |= {name: number + _beaten(name, values) for name in values}
            places = {name: place for name, place in places.items() if ends[name][-1].done}
            running = self._best(values) if number + 1 < len(self._rungs) else running
        for name in names:
            self._store.add(self._whole(ends[name], places.get(name)))
        shutil.rmtree(self._checkpoints, ignore_errors=True)
        return [places.get(str(architecture)) for architecture in architectures]

    def _leg(self, rung: Rung, name: str) -> Leg:
        digest = hashlib.sha256(name.encode()).hexdigest()[:24]
        return Leg(until=rung.epochs, checkpoint=self._checkpoints / f"{digest}.safetensors")

    def _stored(self, rung: Rung, name: str) -> Trial:
        trial = self._store.get(rung.stored_as, name)
        assert trial is not None
        return trial

    def _best(self, values: dict[str, float]) -> list[str]:
        """Those that go on, in the order of proposal; of equals those proposed first."""
        ranked = sorted(values, key=lambda name: -values[name])
        chosen = set(ranked[: self._config.promoted(len(values))])
        return [name for name in values if name in chosen]

    def _whole(self, parts: Sequence[Trial], place: float | None) -> Trial:
        """The last rung's trial with the costs of all."""
        last = parts[-1]
        peaks = [part.peak_memory_mb for part in parts if part.peak_memory_mb is not None]
        epochs = self._rungs[len(parts) - 1].epochs
        own = {} if place is None else {PLACE: place, EPOCHS: float(epochs)}
        return replace(
            last,
            estimator="proxy",
            scores={**last.scores, **own},
            seconds=sum(part.seconds for part in parts),
            cpu_seconds=sum(part.cpu_seconds for part in parts),
            peak_memory_mb=max(peaks, default=None),
        )


def _beaten(name: str, values: dict[str, float]) -> float:
    """The share of a rung's architectures that score lower, in [0, 1)."""
    return sum(value < values[name] for value in values.values()) / len(values)

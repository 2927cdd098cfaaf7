"""Successive halving: architectures train a few epochs, the best go on, the last few to the end. Hyperband is
several of these, called brackets, of which each later one begins at a later rung.

Every rung's trials are stored under a name of their own, so an interrupted search goes on where it was. When
all rungs are done each architecture gets one trial as in any other search, with all that it cost.
"""

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

from atom_nas.run_folder import CHECKPOINTS
from atom_nas.runner import Stage
from atom_nas.strategies import HalvingConfig
from atom_nas.trials import Trial, TrialStore
from distill.leg import Leg
from search_spaces.base import Architecture

Legs = Callable[[str], Leg]
Seconds = Callable[[str], float]
PLACE = "halving_place"
"""The score that ranks: the rung an architecture reached, and the share of that rung's that it beat there, of
whatever bracket."""
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
        stage: makes the stage of a rung for so many architectures, given each one's leg and the seconds that
            it took before.
        same_as: an architecture -> the one whose network it is by another name: all names of a network are in
            one bracket and go on together, as one.
    """

    def __init__(
        self,
        config: HalvingConfig,
        *,
        epochs: int,
        score: str,
        folder: Path,
        store: TrialStore,
        stage: Callable[[Rung, int, Legs, Seconds], Stage],
        same_as: Callable[[str], str] = str,
    ) -> None:
        self._config, self._score, self._store, self._stage = config, score, store, stage
        self._same_as = same_as
        self._rungs = [Rung(each) for each in config.epochs(epochs)]
        self._checkpoints = folder / CHECKPOINTS

    def evaluate(self, architectures: Sequence[Architecture]) -> list[float | None]:
        """Each one's place, higher is better, or None where it failed."""
        names = list(dict.fromkeys(map(str, architectures)))
        positions = {name: position for position, name in enumerate(names)}
        ends: dict[str, list[Trial]] = {name: [] for name in names}
        reached: dict[str, Rung] = {}
        places: dict[str, float] = {}
        networks: dict[str, list[str]] = {}
        for name in names:
            networks.setdefault(self._same_as(name), []).append(name)
        beginning = iter(networks)
        brackets: list[list[str]] = []
        sizes = self._config.brackets(len(networks), len(self._rungs))
        for number, (rung, size) in enumerate(zip(self._rungs, sizes, strict=True)):
            brackets.append(list(islice(beginning, size)))
            running = [name for bracket in brackets for network in bracket for name in networks[network]]
            stage = self._stage(rung, len(running), partial(self._leg, rung), partial(self._used, rung))
            stage.ensure({name: positions[name] for name in running})
            trials = {name: self._stored(rung, name) for name in running}
            reached |= dict.fromkeys(running, rung)
            for name, trial in trials.items():
                ends[name].append(trial)
            worths = {name: trial.worth(self._score) for name, trial in trials.items()}
            values = {name: worth for name, worth in worths.items() if worth is not None}
            places |= {name: number + _beaten(name, values) for name in values}
            places = {name: place for name, place in places.items() if ends[name][-1].done}
            best = _of_networks(values, networks)
            brackets = [self._best(bracket, best) for bracket in brackets]
        for name in names:
            self._store.add(self._whole(ends[name][-1], reached[name], places.get(name)))
        shutil.rmtree(self._checkpoints, ignore_errors=True)
        return [places.get(str(architecture)) for architecture in architectures]

    def _leg(self, rung: Rung, name: str) -> Leg:
        digest = hashlib.sha256(name.encode()).hexdigest()[:24]
        return Leg(until=rung.epochs, checkpoint=self._checkpoints / f"{digest}.safetensors")

    def _used(self, rung: Rung, name: str) -> float:
        """Seconds that an architecture took up to a rung."""
        stored = [self._store.get(each.stored_as, name) for each in self._rungs if each.epochs < rung.epochs]
        return sum(trial.seconds for trial in stored if trial is not None)

    def _stored(self, rung: Rung, name: str) -> Trial:
        trial = self._store.get(rung.stored_as, name)
        assert trial is not None
        return trial

    def _best(self, bracket: Sequence[str], values: Mapping[str, float]) -> list[str]:
        """Those of a bracket's networks that go on, in their order; of equals those proposed first."""
        scored = [network for network in bracket if network in values]
        ranked = sorted(scored, key=lambda network: -values[network])
        chosen = set(ranked[: self._config.promoted(len(scored))])
        return [network for network in scored if network in chosen]

    def _whole(self, last: Trial, reached: Rung, place: float | None) -> Trial:
        """The last rung's trial with the costs of all; of rungs too that fewer samples had let it reach."""
        stored = [self._store.get(rung.stored_as, last.architecture) for rung in self._rungs]
        parts = [part for part in stored if part is not None]
        peaks = [part.peak_memory_mb for part in parts if part.peak_memory_mb is not None]
        own = {} if place is None else {PLACE: place, EPOCHS: float(reached.epochs)}
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


def _of_networks(values: Mapping[str, float], networks: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """The value of each network that some name has one of; all its names have the same."""
    found = {}
    for network, names in networks.items():
        own = [values[name] for name in names if name in values]
        if own:
            found[network] = max(own)
    return found

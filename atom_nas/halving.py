"""Successive halving: architectures train a few epochs, the best go on, the last few to the end. Hyperband is
several of these, called brackets, of which each later one begins at a later rung.

Every rung's trials are stored under a name of their own, so an interrupted search goes on where it was. When
all rungs are done each architecture gets one trial as in any other search, with all that it cost.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from atom_nas.run_folder import CHECKPOINTS
from atom_nas.stage import Special, Stage
from atom_nas.strategies import HalvingConfig
from atom_nas.trials import Trial, TrialStore
from distill.leg import Leg
from reports.rungs import places as places_by_rung
from reports.rungs import worths as worths_at_rung
from reports.scores import HALVING
from reports.weights import weights_of
from search_spaces.base import Architecture

if TYPE_CHECKING:
    from typing_extensions import Unpack

PLACE = HALVING
"""The score that ranks: the rung an architecture reached, and the share of that rung's that it beat there, of
whatever bracket."""
EPOCHS = "trained_epochs"
_DIGITS = 24


@dataclass(frozen=True)
class Rung:
    """How many epochs are done at its end, and the name that its trials are stored under."""

    epochs: int

    @property
    def stored_as(self) -> str:
        return f"proxy after {self.epochs} epochs"


class MakeStage(Protocol):
    """Makes the stage of a rung for so many architectures."""

    def __call__(self, rung: Rung, total: int, **special: Unpack[Special]) -> Stage: ...


class Rungs:
    """What searches that stop trainings early have in common: what is stored of each rung, who is where.

    Args:
        config: how many go on.
        epochs: of a whole training.
        score, combined: by what they go on, see `reports.rungs.worths`.
        folder: of the run.
        store: its trials.
        stage: see `MakeStage`.
        same_as: an architecture -> the one whose network it is by another name: all names of a network begin
            and go on together, as one.
    """

    def __init__(
        self,
        config: HalvingConfig,
        *,
        epochs: int,
        score: str,
        combined: Sequence[str] = (),
        folder: Path,
        store: TrialStore,
        stage: MakeStage,
        same_as: Callable[[str], str] = str,
    ) -> None:
        self.config, self._store, self._make_stage = config, store, stage
        self.worths = partial(worths_at_rung, criterion=score, combined=combined, same_as=same_as)
        self._beside = list(weights_of(combined))
        self._same_as = same_as
        self._networks: dict[str, list[str]] = {}
        self._rungs = [Rung(each) for each in config.epochs(epochs)]
        self._checkpoints = folder / CHECKPOINTS

    def evaluate(self, architectures: Sequence[Architecture]) -> list[float | None]:
        """What a strategy's proposals are answered by, all of them at once.

        Returns:
            Each one's place, higher is better, or None where it failed.
        """
        names = list(dict.fromkeys(map(str, architectures)))
        self._networks = {}
        for name in names:
            self._networks.setdefault(self._same_as(name), []).append(name)
        places = self._rank(self._train(names, self._networks))
        shutil.rmtree(self._checkpoints, ignore_errors=True)
        return [places.get(str(architecture)) for architecture in architectures]

    def _train(
        self, names: Sequence[str], networks: Mapping[str, Sequence[str]]
    ) -> list[Mapping[str, Trial]]:
        """The trials at each rung of what was proposed, in that order, given the names of each network."""
        raise NotImplementedError

    def stage(self, rung: Rung, total: int, **special: Unpack[Special]) -> Stage:
        """A rung's stage, for so many architectures."""
        special |= {"leg": partial(self._leg, rung), "used": partial(self._used, rung)}
        return self._make_stage(rung, total, **special)

    def _rank(self, reached: Sequence[Mapping[str, Trial]]) -> dict[str, float]:
        """Each one's place; stores its trial with all that it cost."""
        last = {name: number for number, trials in enumerate(reached) for name in trials}
        places = places_by_rung([self.values(trials) for trials in reached])
        places = {name: place for name, place in places.items() if reached[last[name]][name].done}
        for name in last:
            self._store.add(self._whole(name, last[name], places.get(name)))
        return places

    def values(self, trials: Mapping[str, Trial]) -> dict[str, float]:
        """By which a rung's trials are compared, higher is better; those left out that lack a score."""
        return self.worths(self.known(trials))

    def known(self, trials: Mapping[str, Trial]) -> dict[str, dict[str, float]]:
        """The scores of a rung's trials, with those that need no training; without those that failed."""
        untrained = self._untrained
        return {
            name: {**untrained.get(name, {}), **trial.scores} for name, trial in trials.items() if trial.done
        }

    @cached_property
    def _untrained(self) -> dict[str, dict[str, float]]:
        """Of each architecture; all are measured before the first training."""
        found: dict[str, dict[str, float]] = {}
        for estimator in self._beside:
            for trial in self._store.trials(estimator):
                found.setdefault(trial.architecture, {}).update(trial.scores)
        return found

    def _leg(self, rung: Rung, name: str) -> Leg:
        return Leg(until=rung.epochs, checkpoint=self._checkpoints / f"{_stem(name)}.safetensors")

    def _keep_checkpoints(self, networks: Iterable[str]) -> None:
        """Those of these networks; of trainings that are over, of thousands, they would fill a disk."""
        kept = {_stem(network) for network in networks}
        for path in self._checkpoints.glob("*"):
            if path.name[:_DIGITS] not in kept:
                path.unlink(missing_ok=True)

    def _used(self, rung: Rung, network: str) -> float:
        """Seconds that a network took up to a rung, by whichever of its names it was trained there."""
        before = [each.stored_as for each in self._rungs if each.epochs < rung.epochs]
        names = self._networks.get(network, ())
        stored = [self._store.get(stored_as, name) for stored_as in before for name in names]
        return sum(trial.seconds for trial in stored if trial is not None)

    def stored(self, rung: Rung, names: Sequence[str]) -> dict[str, Trial]:
        """The trials of architectures that have done a rung."""
        trials = {}
        for name in names:
            trial = self._store.get(rung.stored_as, name)
            assert trial is not None
            trials[name] = trial
        return trials

    def _whole(self, name: str, last: int, place: float | None) -> Trial:
        """The last rung's trial with the costs of all; of rungs too that fewer samples had let it reach."""
        stored = [self._store.get(rung.stored_as, name) for rung in self._rungs]
        parts = [part for part in stored if part is not None]
        peaks = [part.peak_memory_mb for part in parts if part.peak_memory_mb is not None]
        own = {} if place is None else {PLACE: place, EPOCHS: float(self._rungs[last].epochs)}
        end = self.stored(self._rungs[last], [name])[name]
        return replace(
            end,
            estimator="proxy",
            scores={**end.scores, **own},
            seconds=sum(part.seconds for part in parts),
            cpu_seconds=sum(part.cpu_seconds for part in parts),
            peak_memory_mb=max(peaks, default=None),
        )


class Halving(Rungs):
    """One rung after the other: those that go on are chosen when all have done it."""

    def _train(
        self, names: Sequence[str], networks: Mapping[str, Sequence[str]]
    ) -> list[Mapping[str, Trial]]:
        positions = {name: position for position, name in enumerate(names)}
        beginning = iter(networks)
        brackets: list[list[str]] = []
        reached: list[Mapping[str, Trial]] = []
        sizes = self.config.brackets(len(networks), len(self._rungs))
        for rung, size in zip(self._rungs, sizes, strict=True):
            brackets.append(list(islice(beginning, size)))
            running = [name for bracket in brackets for network in bracket for name in networks[network]]
            # What took longest so far comes first, so that no worker is left alone with it at the rung's end.
            costliest = sorted(running, key=lambda name: self._used(rung, self._same_as(name)), reverse=True)
            self.stage(rung, len(running)).ensure({name: positions[name] for name in costliest})
            reached.append(self.stored(rung, running))
            best = _of_networks(self.values(reached[-1]), networks)
            brackets = [self._best(bracket, best) for bracket in brackets]
            self._keep_checkpoints(network for bracket in brackets for network in bracket)
        return reached

    def _best(self, bracket: Sequence[str], values: Mapping[str, float]) -> list[str]:
        """Those of a bracket's networks that go on, in their order; of equals those proposed first."""
        scored = [network for network in bracket if network in values]
        ranked = sorted(scored, key=lambda network: -values[network])
        chosen = set(ranked[: self.config.promoted(len(scored))])
        return [network for network in scored if network in chosen]


def _stem(network: str) -> str:
    """How the names of a network's checkpoints begin."""
    return hashlib.sha256(network.encode()).hexdigest()[:_DIGITS]


def _of_networks(values: Mapping[str, float], networks: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """The value of each network that some name has one of; all its names have the same."""
    found: dict[str, float] = {}
    for network, names in networks.items():
        own = next((values[name] for name in names if name in values), None)
        found |= {} if own is None else {network: own}
    return found

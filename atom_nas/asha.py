"""Asynchronous successive halving: architectures go on as soon as they are among the best so far.

What "so far" means must not depend on how fast workers are, or no search could be resumed or repeated. So the
order in which trainings count is that of a clock on which every epoch takes equally long; a training that is
done sooner waits for its turn, while others run.
"""

import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from atom_nas.halving import Rungs
from atom_nas.stage import Progress, Stage
from atom_nas.strategies import AshaConfig
from atom_nas.trials import Trial
from atom_nas.workload import TrialJob

TITLE = "proxy (epochs)"


@dataclass(frozen=True)
class Step:
    """A network's training to the end of a rung, by its 0-based number."""

    rung: int
    network: str


class Race:
    """Who trains next, decided whenever a slot is free: on the best results that ended before, by the clock.

    Args:
        config: how many go on, and the number of slots.
        epochs: done at the end of each rung.
        networks: in the order in which they begin.
        worths: from the results of a rung, by network, to what they are compared by, higher is better; those
            left out that have nothing. As they are where it is left out.
    """

    def __init__(
        self,
        config: AshaConfig,
        epochs: Sequence[int],
        networks: Sequence[str],
        worths: Callable[[Mapping[str, Any]], Mapping[str, float]] = dict,
    ) -> None:
        self._config, self._worths = config, worths
        self.lengths = [after - before for before, after in zip((0, *epochs), epochs, strict=False)]
        self._waiting = deque(networks)
        self._order = {network: number for number, network in enumerate(networks)}
        self._running: list[tuple[int, int, Step]] = []
        self._begun, self._now = 0, 0
        self._results: list[dict[str, Any]] = [{} for _ in epochs]
        self._ranked: list[list[str] | None] = [None for _ in epochs]
        self._gone_on: list[set[str]] = [set() for _ in epochs]

    def begin(self) -> list[Step]:
        """What begins now, in the slots that are free."""
        steps = []
        while len(self._running) < self._config.slots and (step := self._next()) is not None:
            self._begun += 1
            heapq.heappush(self._running, (self._now + self.lengths[step.rung], self._begun, step))
            steps.append(step)
        return steps

    def awaited(self) -> Step | None:
        """Whose result counts next; None once there is nothing left to do."""
        return self._running[0][2] if self._running else None

    def end(self, result: Any) -> None:
        """Let the result that is awaited count; None if it failed."""
        self._now, _, step = heapq.heappop(self._running)
        if result is not None:
            self._results[step.rung][step.network] = result
            self._ranked[step.rung] = None

    def _next(self) -> Step | None:
        """The furthest that may go on, or the next that begins."""
        chosen: Step | None = None
        over = not self._waiting  # whether no more will come to a rung
        for rung in range(len(self.lengths) - 1):
            over = over and all(step.rung != rung for _, _, step in self._running)
            network = self._to_go_on(rung, over=over)
            if network is not None:
                chosen, over = Step(rung + 1, network), False
        if chosen is not None:
            self._gone_on[chosen.rung - 1].add(chosen.network)
            return chosen
        return Step(0, self._waiting.popleft()) if self._waiting else None

    def _to_go_on(self, rung: int, *, over: bool) -> str | None:
        """The best that may go on and has not; of equals the one proposed first.

        One in eta may so far, and rounded up, as in successive halving, when the rung is over.
        """
        ranked = self._best_first(rung)
        may = self._config.promoted(len(ranked)) if over else len(ranked) // self._config.eta
        return next((network for network in ranked[:may] if network not in self._gone_on[rung]), None)

    def _best_first(self, rung: int) -> list[str]:
        ranked = self._ranked[rung]
        if ranked is None:
            values = self._worths(self._results[rung])
            ranked = sorted(values, key=lambda network: (-values[network], self._order[network]))
            self._ranked[rung] = ranked
        return ranked


class Asha(Rungs):
    """Trains what a `Race` says; its rungs are open at the same time.

    Args:
        slots: how many go on, and the number of slots.
        tell: called with the progress, in epochs of all rungs.
        common: what else `Rungs` takes.
    """

    def __init__(self, slots: AshaConfig, *, tell: Callable[[Progress], None], **common: Any) -> None:
        super().__init__(slots, **common)
        self._slots, self._tell = slots, tell

    def _train(
        self, names: Sequence[str], networks: Mapping[str, Sequence[str]]
    ) -> list[Mapping[str, Trial]]:
        epochs = [rung.epochs for rung in self._rungs]
        race = Race(self._slots, epochs, list(networks), self.worths)
        bar = _Bar(race.lengths, self._at_least(len(names), race.lengths), self._tell)
        stages = [
            self.stage(rung, len(names), on_trial=partial(bar.told, number))
            for number, rung in enumerate(self._rungs)
        ]
        positions = {name: position for position, name in enumerate(names)}
        reached = _Course(race, stages, bar, self.known).run(positions, networks)
        return [self.stored(rung, there) for rung, there in zip(self._rungs, reached, strict=True)]

    def _at_least(self, count: int, lengths: Sequence[int]) -> int:
        """The epochs of successive halving, which lets no more go on than it must."""
        epochs = 0
        for length in lengths:
            epochs, count = epochs + count * length, self.config.promoted(count)
        return epochs


class _Course:
    """A race that is run: trainings as the engine ends them, told to the race in its own order.

    Args:
        stages: one a rung.
        known: the scores of trials.
    """

    def __init__(
        self,
        race: Race,
        stages: Sequence[Stage],
        bar: "_Bar",
        known: Callable[[Mapping[str, Trial]], dict[str, dict[str, float]]],
    ) -> None:
        self._race, self._stages, self._bar, self._known = race, stages, bar, known
        self._left: dict[Step, list[str]] = {}
        self._steps: dict[TrialJob, Step] = {}
        self._new: list[TrialJob] = []

    def run(self, positions: Mapping[str, int], networks: Mapping[str, Sequence[str]]) -> list[list[str]]:
        """The architectures that did each rung, given the position of each and the names of each network."""
        self._positions, self._networks = positions, networks
        self._reached: list[list[str]] = [[] for _ in self._stages]
        self._advance()
        for outcome in self._stages[0].engine.run((), more=self._handed_out):
            step = self._steps.pop(outcome.job)
            self._stages[step.rung].settle(outcome)
            self._left[step].remove(outcome.job.architecture)
            self._ask(step)
            self._advance()
        self._bar.full()
        return [sorted(names, key=positions.__getitem__) for names in self._reached]

    def _advance(self) -> None:
        """Let every result count whose turn it is, and begin what that makes room for."""
        while True:
            for step in self._race.begin():
                self._begin(step)
            awaited = self._race.awaited()
            if awaited is None or self._left[awaited]:
                return
            self._race.end(self._result(awaited))

    def _begin(self, step: Step) -> None:
        names, stage = self._networks[step.network], self._stages[step.rung]
        self._reached[step.rung] += names
        self._bar.begun(step.rung, len(names))
        self._left[step] = [name for name in names if not stage.take(name, self._positions[name])]
        self._ask(step)

    def _ask(self, step: Step) -> None:
        """For the next of a network's names, by when the scores of the one before are known."""
        stage = self._stages[step.rung]
        self._left[step] = [name for name in self._left[step] if not stage.shares_end(name)]
        if self._left[step]:
            job = stage.job(self._left[step][0])
            self._steps[job] = step
            self._new.append(job)

    def _handed_out(self) -> list[TrialJob]:
        new, self._new = self._new, []
        return new

    def _result(self, step: Step) -> Mapping[str, float] | None:
        """The scores of a network, by the first of its names that has most of them."""
        stage, names = self._stages[step.rung], self._networks[step.network]
        trials = {name: trial for name in names if (trial := stage.store.get(stage.name, name))}
        return max(self._known(trials).values(), key=len, default=None)


class _Bar:
    """The progress of all rungs as one, in epochs. How many go on is not known before: it ends with no more
    than were begun, and expects `at_least` so many."""

    def __init__(self, lengths: Sequence[int], at_least: int, tell: Callable[[Progress], None]) -> None:
        self._lengths, self._at_least, self._tell = lengths, at_least, tell
        self._rungs: dict[int, Progress] = {}
        self._last = Progress(stage=TITLE, done=0, total=at_least)
        self._begun = 0
        tell(self._last)

    def begun(self, rung: int, count: int) -> None:
        """So many more train to the end of a rung."""
        self._begun += count * self._lengths[rung]

    def told(self, rung: int, progress: Progress) -> None:
        """Of a trial of a rung; of a rung's start nothing is said."""
        self._rungs[rung] = progress
        if progress.architecture is None:
            return
        self._last = replace(
            progress,
            stage=TITLE,
            done=sum(self._lengths[each] * of.done for each, of in self._rungs.items()),
            reused=sum(self._lengths[each] * of.reused for each, of in self._rungs.items()),
            failed=sum(of.failed for of in self._rungs.values()),
            total=max(self._at_least, self._begun),
        )
        self._tell(self._last)

    def full(self) -> None:
        """All that were begun are done."""
        self._tell(replace(self._last, total=self._begun))

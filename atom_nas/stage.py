"""One stage of a search: an estimator over architectures, through the store, the cache and the engine."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypedDict

from atom_nas.engines.base import OVERDUE, Engine, Outcome
from atom_nas.references import ReferenceCache
from atom_nas.trials import Trial, TrialStore
from atom_nas.workload import TrialJob
from distill.leg import Leg
from distill.seeding import derive_seed


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a stage stands, after a trial or at its start.

    Attributes:
        stage: "proxy", "reference" or what else the stage is called.
        done: architectures with a result by now, failures and earlier sessions' included; epochs, where the
            title says so.
        total: how many there will be at most.
        failed: how many architectures failed.
        cached: how many of `done` came from the reference cache.
        reused: how many of `done` an earlier session had stored.
        architecture: the last one; None at the start of a stage.
        measure: what its score is called; empty where the stage's name says it.
        score: its score, or None if it failed.
        pieces: `done`, each architecture counted by what it is expected to cost against the mean; None where
            that is not known.
        free: how many of `pieces` were cached or reused.
    """

    stage: str
    done: int
    total: int
    failed: int = 0
    cached: int = 0
    reused: int = 0
    architecture: str | None = None
    measure: str = ""
    score: float | None = None
    pieces: float | None = None
    free: float = 0.0


def trial_seed(run_seed: int, estimator: str, architecture: str) -> int:
    """The seed of a trial: independent of order, workers and of what else is sampled."""
    return derive_seed(run_seed, estimator, architecture)


def costliest_first(trials: Sequence[Trial]) -> dict[str, int]:
    """Architectures and their positions, so that no worker is left alone with a long one at the end."""
    costliest = sorted(trials, key=lambda trial: -trial.scores.get("flops", 0.0))
    return {trial.architecture: trial.position for trial in costliest}


def expected_costs(trials: Sequence[Trial], *, halved: bool) -> dict[str, float]:
    """What training takes, one against another: the seconds as the proxy, or, where that was `halved`, which
    stopped some early, the operations of a pass."""
    return {
        trial.architecture: trial.scores.get("flops", 0.0) if halved else trial.seconds for trial in trials
    }


class _Count:
    """How far a stage is."""

    def __init__(
        self, title: str, score: str, total: int, costs: Mapping[str, float], tell: Callable[[Progress], None]
    ) -> None:
        """See `Stage`; `tell` is called now and after each trial."""
        self._score, self._costs, self._on_trial = score, costs, tell
        self._unit = sum(costs.values()) / len(costs) if costs else 0.0
        measure = "" if score == title else score
        pieces = 0.0 if self._unit > 0 else None
        self._now = Progress(stage=title, done=0, total=total, measure=measure, pieces=pieces)
        tell(self._now)

    def add(self, trial: Trial, *, reused: bool) -> None:
        """Count a trial; `reused`: an earlier session had stored it."""
        before = self._now
        now = replace(
            before,
            done=before.done + 1,
            failed=before.failed + (not trial.done),
            cached=before.cached + trial.cached,
            reused=before.reused + reused,
            architecture=trial.architecture,
            score=trial.scores.get(self._score),
        )
        if before.pieces is not None:
            piece = self._costs.get(trial.architecture, self._unit) / self._unit
            free = piece if trial.cached or reused else 0.0
            now = replace(now, pieces=before.pieces + piece, free=before.free + free)
        self._now = now
        self._on_trial(now)


class Special(TypedDict, total=False):
    """What is special about a stage; see `Stage` for each."""

    cache: ReferenceCache | None
    on_trial: Callable[[Progress], None]
    stored_as: str | None
    leg: Callable[[str], Leg] | None
    spent: Callable[[Leg], tuple[float, float]] | None
    finish: Callable[[Trial], Trial] | None
    on_wait: Callable[[], None] | None
    costs: Mapping[str, float]
    final: bool
    used: Callable[[str], float] | None


@dataclass(kw_only=True)
class Stage:
    """Makes sure that architectures have a stored trial.

    `ensure` does it for as many as are given. Where others decide who is next, as in `asha`, an architecture
    goes through `take`, which settles what needs no training, or else `job`, which the engine runs, and
    `settle`.

    Attributes:
        title: the stage's name in progress reports.
        estimator: the name of the one that scores.
        score: which score to report as the trial's.
        total: how many architectures are expected at most.
        seed: the run's.
        device: for the record of a trial that never ran.
        misfit: why an architecture cannot take the images, or None.
        engine: runs what is neither stored nor cached.
        store: of the run.
        cache: trials of other runs, or None.
        on_trial: called after each stored trial, with the progress.
        stored_as: the name under which trials are stored, if it is not the estimator's.
        leg: which part of a network's training is asked for, by what `same_as` gives; None: all of it.
        spent: wall and CPU seconds that earlier sessions spent on what a leg asks for, which no trial counts
            yet; None: nothing.
        finish: makes of a trial that was run the one to be stored; None: as it is.
        on_wait: called now and then while trials run.
        same_as: an architecture -> the one whose network is scored for it, the same by another name: of all
            that have one and the same, one is scored, and the others get its scores with costs of their own.
        costs: what architectures are expected to take, in any unit, to tell how far the stage is; empty:
            nothing is known.
        limit: seconds after which an architecture counts as failed; None: none.
        final: what a shorter limit has ended is not tried again: what was proposed since has learnt from it.
        used: seconds of the limit that a network took in stages before this one, by what `same_as` gives;
            None: none.
    """

    title: str
    estimator: str
    score: str
    total: int
    seed: int
    device: str
    misfit: Callable[[str], str | None]
    engine: Engine[TrialJob]
    store: TrialStore
    cache: ReferenceCache | None
    on_trial: Callable[[Progress], None]
    stored_as: str | None = None
    leg: Callable[[str], Leg] | None = None
    spent: Callable[[Leg], tuple[float, float]] | None = None
    finish: Callable[[Trial], Trial] | None = None
    on_wait: Callable[[], None] | None = None
    same_as: Callable[[str], str] = str
    costs: Mapping[str, float] = field(default_factory=dict)
    limit: float | None = None
    final: bool = False
    used: Callable[[str], float] | None = None
    _count: _Count = field(init=False)
    _seen: set[str] = field(init=False, default_factory=set)
    _known: dict[str, Mapping[str, float]] = field(init=False, default_factory=dict)
    _ended: dict[str, str] = field(init=False, default_factory=dict)
    _overdue: dict[str, Trial] = field(init=False, default_factory=dict)
    _positions: dict[str, int] = field(init=False, default_factory=dict)
    _spent: dict[str, tuple[float, float]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._count = _Count(self.title, self.score, self.total, self.costs, self.on_trial)

    @property
    def name(self) -> str:
        """The name under which trials are stored."""
        return self.stored_as or self.estimator

    def ensure(self, positions: Mapping[str, int]) -> None:
        """Get every architecture (string form -> 0-based position) a stored trial.

        Raises:
            EngineError: the engine cannot work.
            OSError: the store cannot be written; everything before is stored.
        """
        wanted = [name for name in positions if name not in self._seen]
        left = [name for name in wanted if not self.take(name, positions[name])]
        firsts = {self.same_as(name): name for name in reversed(left)}
        self._run([name for name in left if firsts[self.same_as(name)] == name])
        self._run([name for name in left if firsts[self.same_as(name)] != name])

    def _run(self, names: Sequence[str]) -> None:
        left = [name for name in names if not self.shares_end(name)]
        for outcome in self.engine.run([self.job(name) for name in left], self.on_wait):
            self.settle(outcome)

    def shares_end(self, architecture: str) -> bool:
        """Settle an architecture whose network took longer than it may by another name."""
        network = self.same_as(architecture)
        reason = None if network in self._known else self._ended.get(network)
        if reason is not None:
            self.settle(self._not_run(architecture, reason))
        return reason is not None

    def take(self, architecture: str, position: int) -> bool:
        """Settle what needs no training: stored by the run, in the cache, or a misfit. False for the rest, of
        which each needs its `job` done and the outcome given to `settle`."""
        self._positions[architecture] = position
        stored = self.store.get(self.name, architecture)
        if stored and self._may_take_longer(stored):
            self._overdue[architecture] = stored  # it stays until there is another
            return False
        if stored:
            self._note(stored, reused=True)
            return True
        # Of a network that has scores by another name the training is paid for: this one only counts.
        paid = self.same_as(architecture) in self._known
        cached = self.cache.get(self.name, architecture) if self.cache and not paid else None
        if cached:
            self._keep(replace(cached, position=position, cached=True))
            return True
        reason = self.misfit(architecture)
        if reason:
            self._keep(self._trial(self._not_run(architecture, f"does not fit the images: {reason}")))
        return reason is not None or self.shares_end(architecture)

    def job(self, architecture: str) -> TrialJob:
        """What is to be run for an architecture that `take` did not settle; of those that are one network the
        second after the first is settled, whose scores it gets."""
        job = self._job(architecture)
        if self.spent and job.leg and job.known is None:
            self._spent[architecture] = self.spent(job.leg)
        return job

    def settle(self, outcome: Outcome[TrialJob]) -> None:
        """Store what became of a job."""
        job = outcome.job
        trial = self._trial(outcome)
        seconds, cpu_seconds = self._spent.pop(job.architecture, (0.0, 0.0))
        trial = replace(trial, seconds=trial.seconds + seconds, cpu_seconds=trial.cpu_seconds + cpu_seconds)
        trial = self.finish(trial) if self.finish else trial
        if (earlier := self._overdue.pop(job.architecture, None)) is not None:
            self._replace(earlier, trial)
        else:
            self._keep(trial)
        # What another name's training paid for has no cost of its own, by which other runs could count.
        if self.cache and job.known is None:
            self.cache.add(trial)

    def _replace(self, earlier: Trial, trial: Trial) -> None:
        """Keep a trial in the place of one that had less time, whose seconds were spent as well."""
        seconds, cpu_seconds = trial.seconds + earlier.seconds, trial.cpu_seconds + earlier.cpu_seconds
        whole = replace(trial, seconds=seconds, cpu_seconds=cpu_seconds)
        self.store.replace(whole)
        self._note(whole)

    def _keep(self, trial: Trial) -> None:
        self.store.add(trial)
        self._note(trial)

    def _may_take_longer(self, stored: Trial) -> bool:
        """Whether an earlier session ended a trial sooner than this one would."""
        if self.final or self.stored_as is not None:  # Rungs of a halved search are counted together by then.
            return False
        before = _limit_of(stored)
        return before is not None and (self.limit is None or self.limit > before)

    def _job(self, architecture: str) -> TrialJob:
        scored = self.same_as(architecture)
        return TrialJob(
            estimator=self.estimator,
            architecture=architecture,
            seed=trial_seed(self.seed, self.estimator, scored),
            leg=self.leg(scored) if self.leg else None,
            scored_as=scored if scored != architecture else None,
            known=self._known.get(scored),
            limit=self.limit,
            used=self.used(scored) if self.used else 0.0,
        )

    def _trial(self, outcome: Outcome[TrialJob]) -> Trial:
        return Trial(
            estimator=self.name,
            architecture=outcome.job.architecture,
            position=self._positions[outcome.job.architecture],
            status="failed" if outcome.reason else "done",
            reason=outcome.reason,
            scores=outcome.scores,
            seconds=outcome.seconds,
            cpu_seconds=outcome.cpu_seconds,
            peak_memory_mb=outcome.peak_memory_mb,
            cached=False,
            seed=outcome.job.seed,
            device=outcome.device,
        )

    def _not_run(self, architecture: str, reason: str) -> Outcome[TrialJob]:
        return Outcome(
            job=self._job(architecture),
            reason=reason,
            scores={},
            seconds=0.0,
            cpu_seconds=0.0,
            peak_memory_mb=None,
            device=self.device,
        )

    def _note(self, trial: Trial, *, reused: bool = False) -> None:
        """What others that are the same network, and who waits, need to know of a stored trial."""
        self._seen.add(trial.architecture)
        if trial.done:
            self._known.setdefault(self.same_as(trial.architecture), trial.scores)
        elif trial.reason and self.limit is not None and (_limit_of(trial) or 0.0) >= self.limit:
            self._ended[self.same_as(trial.architecture)] = trial.reason
        self._count.add(trial, reused=reused)


def _limit_of(trial: Trial) -> float | None:
    """The limit that ended a trial, in seconds; None if none did."""
    ended = re.match(f"{OVERDUE} ([^ ]+) seconds", trial.reason or "")
    return float(ended[1]) if ended else None

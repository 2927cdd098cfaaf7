"""`search`: rank architectures on a synthetic set, judge the ranking by a reference, train the best for good.

A search is a replay: proposals depend on the seed and on scores alone, and every architecture that has a
stored trial is answered from the store. So an interrupted run, run again, repeats nothing that was finished
and ends as if it had never been interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from atom_nas import engines
from atom_nas.asha import Asha
from atom_nas.building import SpaceBuilder
from atom_nas.confirmed.confirmation import Confirmation, best_distinct, require_same_training
from atom_nas.engines.base import Engine
from atom_nas.estimators import AS_PROXY, SCORED_ONCE, TRAINED_BESIDE
from atom_nas.estimators.base import Estimator
from atom_nas.halving import Halving, Rung, Rungs
from atom_nas.record import code_before, environments_before, first_record
from atom_nas.references import ReferenceCache
from atom_nas.repeating import spent_on
from atom_nas.run_folder import RunFolder, check_place, check_run, open_run
from atom_nas.same_networks import SameNetworks
from atom_nas.search_plan import SearchPlan, prepare
from atom_nas.search_summary import SearchSummary, summarised
from atom_nas.settings import SearchSettings
from atom_nas.stage import Progress, Special, Stage, costliest_first, expected_costs
from atom_nas.strategies import LEARNING, AshaConfig, run_strategy
from atom_nas.tables import reference_csv
from atom_nas.trials import Trial
from atom_nas.workload import TrialJob, Workload
from distill import kernels
from distill.files import write_bytes, write_text
from distill.seeding import derive_seed
from reports.formatting import plural
from reports.rungs import has_trained
from reports.weights import weights_of
from search_spaces.base import Architecture, Repeating, Space
from search_spaces.foreign import NniSpace

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Progress", "SearchSettings", "SearchSummary", "run_search"]

Report = Callable[[Progress], None]
_GO_ON = (
    "the run is kept; go on by --resume with another --reference (none: no judgement of the ranking), or "
    "with more --samples"
)


def run_search(settings: SearchSettings, *, progress: Report | None = None) -> SearchSummary:
    """Propose and score architectures, get the reference, confirm the best; the run folder holds the result.

    Args:
        settings: what to do.
        progress: called at the start of each stage and after each trial.
    Raises:
        ValueError: the settings are wrong or do not match the run to be resumed; nothing was started.
        OSError: the run folder cannot be written; what was stored stays.
        EngineError: no worker can start.
        KeyboardInterrupt: passes through once the workers are stopped; every finished trial is stored.
    """
    if not isinstance(settings, SearchSettings):
        raise ValueError(
            f"run_search takes SearchSettings, not {settings!r}: resumed(RUN) gives those of a run"
        )
    check_place(settings.out, resume=settings.resume)
    plan = prepare(settings)
    record = first_record(plan)
    earlier = check_run(settings.out, record, resume=settings.resume)
    require_same_training(plan, settings.out)
    record["space"] |= code_before(earlier.get("space"), plan.space, settings.out)
    if plan.device.type == "cpu":
        # Compiled here, once, if this machine has none yet: workers then find them.
        record["environment"]["kernels"] = kernels.why_unavailable() or "fused"
    record |= environments_before(earlier, record["environment"], settings.out)
    with open_run(settings.out, record, resume=settings.resume) as folder, closing(_engine(plan)) as engine:
        session = _Session(plan, folder, engine, progress)
        session.draw_picture()
        session.rank()
        session.look()
        session.refer()
        session.confirm()
        return session.finish()


def _engine(plan: SearchPlan) -> Engine[TrialJob]:
    """One engine for all stages, so that its workers start once."""
    settings, shape = plan.settings, plan.data.image_shape
    build = SpaceBuilder(
        space=settings.space,
        options=dict(settings.space_options),
        image_shape=shape,
        classes=plan.data.classes,
        code=plan.space.code if isinstance(plan.space, NniSpace) else None,
    )
    smaller = replace(build, options={**settings.space_options, **settings.proxy_space})
    optional = [estimator for estimator in (plan.reference, plan.confirm) if estimator]
    workload = Workload(
        build=build,
        estimators=(plan.proxy, *plan.others, *optional),
        image_shape=shape,
        proxies=dict.fromkeys(AS_PROXY, smaller) if settings.proxy_space else {},
        repeats=dict.fromkeys(AS_PROXY, settings.repeats),
    )
    made: Engine[TrialJob] = engines.load(settings.engine).engine(
        workload, workers=plan.workers, device=str(plan.device)
    )
    return made


class _Session:
    """The steps of a search on an open run folder."""

    def __init__(
        self, plan: SearchPlan, folder: RunFolder, engine: Engine[TrialJob], progress: Report | None
    ) -> None:
        self._plan = plan
        self._settings = plan.settings
        self._folder = folder
        self._engine = engine
        self._progress = progress
        self._same = SameNetworks(plan.space)

    def draw_picture(self) -> None:
        """Draw the synthetic set beside the results, for the report."""
        # Not the set's own picture file: it may come from a stranger, and be a link to anything.
        write_bytes(self._folder.path / "synthetic.png", self._plan.synthetic.picture())

    def rank(self) -> None:
        """Propose architectures and score them on the synthetic set."""
        self._find_same()
        self._propose()
        self._find_same()  # now in the order of proposal, not of completion

    def _propose(self) -> None:
        plan, settings = self._plan, self._settings
        with self._folder.timing("search_wall_seconds"):
            evaluate = self._evaluation()
            if plan.drawn is None:
                listed = plan.listed.architectures if plan.listed else ()
                evaluate([plan.space.parse(name) for name in listed])
                return

            def checked(proposed: Sequence[Architecture]) -> Sequence[float | None]:
                # Those that learn propose a few at a time: later ones may be of the table.
                if plan.table and settings.strategy not in LEARNING:
                    names = [str(each) for each in proposed]
                    plan.table.of(names, settings.reference, _GO_ON)
                return evaluate(proposed)

            run_strategy(
                settings.strategy,
                plan.drawn,
                plan.data.image_shape,
                samples=plan.samples,
                seed=settings.seed,
                evaluate=checked,
                options=plan.strategy_options,
            )

    def look(self) -> None:
        """Score what was proposed with the other estimators too; trainings are timed apart."""
        trials = self._folder.store.trials("proxy")
        positions = {trial.architecture: trial.position for trial in trials}
        costs = expected_costs(trials, halved=bool(self._plan.halving))
        for estimator in self._plan.others:
            if self._decides(estimator):
                continue  # measured before anything was trained
            trains = estimator.name in TRAINED_BESIDE
            with self._folder.timing("beside_wall_seconds" if trains else "search_wall_seconds"):
                self._score_beside(estimator, positions, costs=costs)

    def _score_beside(
        self, estimator: Estimator, positions: Mapping[str, int], **special: Unpack[Special]
    ) -> None:
        score = self._settings.criterion if estimator.name in TRAINED_BESIDE else estimator.name
        special |= {"final": self._decides(estimator) and has_trained(self._folder.store.estimators())}
        self._stage(estimator.name, estimator, score, len(positions), **special).ensure(positions)

    def _evaluation(self) -> Callable[[Sequence[Architecture]], list[float | None]]:
        """What answers the strategy's proposals."""
        plan, score = self._plan, self._settings.criterion
        if plan.halving is None:
            final = self._settings.strategy in LEARNING
            return Proposals(
                self._stage("proxy", plan.proxy, score, plan.expected, final=final), score
            ).evaluate
        asynchronous = isinstance(plan.halving, AshaConfig)
        halved: Callable[..., Rungs] = partial(Asha, tell=self._tell) if asynchronous else Halving
        rungs = halved(
            plan.halving,
            epochs=plan.epochs,
            score=self._settings.score,
            combined=self._settings.combined,
            folder=self._folder.path,
            store=self._folder.store,
            stage=self._rung,
            same_as=self._same.representative,
        )

        def evaluate(proposed: Sequence[Architecture]) -> list[float | None]:
            self._score_untrained(proposed)
            return rungs.evaluate(proposed)

        return evaluate

    def _score_untrained(self, proposed: Sequence[Architecture]) -> None:
        """Measure those scores that decide who trains on and need no training."""
        positions = {name: number for number, name in enumerate(dict.fromkeys(map(str, proposed)))}
        for estimator in self._plan.others:
            if self._decides(estimator):
                self._score_beside(estimator, positions)
                trials = self._folder.store.trials(estimator.name)
                if not any(trial.done for trial in trials):
                    raise ValueError(
                        f"{estimator.name} failed for all {len(trials)} architectures (e.g. "
                        f"{trials[0].reason}), and who trains on is decided by it too: leave it out of "
                        "--combine, or mend it"
                    )

    def _decides(self, estimator: Estimator) -> bool:
        """Whether its scores say who trains on."""
        return self._plan.halving is not None and estimator.name in weights_of(self._settings.combined)

    def _rung(self, rung: Rung, total: int, **special: Unpack[Special]) -> Stage:
        title, criterion = f"proxy, {plural(rung.epochs, 'epoch')}", self._settings.criterion
        special |= {"stored_as": rung.stored_as, "spent": partial(spent_on, repeats=self._settings.repeats)}
        return self._stage(title, self._plan.proxy, criterion, total, **special)

    def refer(self) -> None:
        """Get the reference scores of what was scored."""
        scored = [trial for trial in self._folder.store.trials("proxy") if trial.done]
        table = self._folder.path / "reference.csv"
        if self._plan.table is None:
            table.unlink(missing_ok=True)
        else:
            names = [trial.architecture for trial in scored]
            matched = self._plan.table.of(names, self._settings.reference, _GO_ON)
            write_text(table, reference_csv(matched))
            self._folder.record["reference"]["matched"] = len(matched)
        if self._plan.reference and scored:
            self._train_reference(self._plan.reference, scored)

    def confirm(self) -> None:
        """Train the best on the real images, and keep them."""
        if self._settings.confirm:
            chosen = best_distinct(self._folder, self._settings.confirm)
            with self._folder.timing("confirm_wall_seconds"):
                Confirmation(self._plan, self._folder, self._stage, self._tell).ensure(chosen)

    def finish(self) -> SearchSummary:
        """Mark the run as complete."""
        self._folder.record["complete"] = True
        self._folder.save()
        return summarised(self._plan, self._folder)

    def _find_same(self) -> None:
        """Note which of what is stored is one network by several names, the first of them in its order."""
        scored = [trial.architecture for trial in self._folder.store.trials("proxy") if trial.done]
        self._folder.record["same"] = self._same.repeated(scored)

    def _train_reference(self, estimator: Estimator, scored: list[Trial]) -> None:
        chosen = reference_sample(scored, self._settings.reference_samples, self._settings.seed)
        cache = ReferenceCache(self._cache_key(estimator))
        try:
            with self._folder.timing("reference_wall_seconds"):
                costs = expected_costs(chosen, halved=bool(self._plan.halving))
                total = len(chosen)
                stage = self._stage("reference", estimator, "test_accuracy", total, cache=cache, costs=costs)
                stage.ensure(costliest_first(chosen))
        finally:
            cache.close()
        done = [trial for trial in self._folder.store.trials(estimator.name) if trial.done]
        self._folder.record["reference"]["matched"] = len(done)

    def _cache_key(self, estimator: Estimator) -> dict[str, Any]:
        plan = self._plan
        return {
            "dataset": plan.dataset.fingerprint,
            "space": plan.settings.space,
            "space_options": plan.space_options,
            **_definition(plan.space),
            "image_shape": list(plan.data.image_shape),
            "estimator": estimator.settings(),
            "seed": plan.settings.seed,
            "device": plan.device.type,
            "torch": torch.__version__,
            "kernels": kernels.way() if plan.device.type == "cpu" else None,
        }

    def _stage(
        self, title: str, estimator: Estimator, score: str, total: int, **special: Unpack[Special]
    ) -> Stage:
        """A stage of this run."""
        same_as = self._same.representative if estimator.name in SCORED_ONCE else str
        limited = estimator.name in (self._plan.proxy.name, *(each.name for each in self._plan.others))
        return Stage(
            title=title,
            estimator=estimator.name,
            score=score,
            total=total,
            seed=self._settings.seed,
            device=self._plan.device.type,
            misfit=self._misfit,
            engine=self._engine,
            store=self._folder.store,
            limit=self._settings.trial_limit if limited else None,
            same_as=same_as,
            **({"cache": None, "on_trial": self._tell} | special),
        )

    def _misfit(self, architecture: str) -> str | None:
        space = self._plan.space
        return space.misfit(space.parse(architecture), self._plan.data.image_shape)

    def _tell(self, progress: Progress) -> None:
        if progress.architecture and progress.score is not None:  # for reports of a search that is stopped
            self._same.note(progress.architecture, self._folder.record["same"])
        # So that kill -9 loses little of the wall time.
        self._folder.save_now_and_then()
        if self._progress:
            self._progress(progress)


class Proposals:
    """What a strategy's proposals are answered from; their positions count up in the order of proposal."""

    def __init__(self, stage: Stage, score: str) -> None:
        """Answer with the score of that name, turned so that higher is better."""
        self._stage = stage
        self._score = score
        self._positions: dict[str, int] = {}

    def evaluate(self, architectures: Sequence[Architecture]) -> list[float | None]:
        """The score of each architecture, from the store or trained now; None where it failed."""
        names = [str(architecture) for architecture in architectures]
        for name in names:
            self._positions.setdefault(name, len(self._positions))
        self._stage.ensure({name: self._positions[name] for name in names})
        return [self._value(name) for name in names]

    def _value(self, architecture: str) -> float | None:
        trial = self._stage.store.get(self._stage.estimator, architecture)
        assert trial is not None
        return trial.worth(self._score)


def reference_sample(scored: Sequence[Trial], count: int | None, seed: int) -> list[Trial]:
    """A seeded subset of `count` trials, in their order; all of them for None.

    Each architecture has a random rank of its own, so a larger count, or more trials to choose from, keeps
    most of a smaller choice.
    """
    if count is None:
        return list(scored)
    ranked = sorted(scored, key=lambda trial: derive_seed(seed, "reference sample", trial.architecture))
    return sorted(ranked[:count], key=lambda trial: trial.position)


def _definition(space: Space) -> dict[str, Any]:
    """What else a reference score depends on: of model spaces of one name their choices, and the code of a
    user's; where networks have several names, that another name's training may be its own."""
    if isinstance(space, NniSpace):
        return {"space_digest": space.digest, "space_code": space.code}
    return {"scored": "once a network, for its first name"} if isinstance(space, Repeating) else {}

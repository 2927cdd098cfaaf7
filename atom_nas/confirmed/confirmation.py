"""The best of a ranking, trained on the real images and kept with their weights.

What has a whole card is done. What was being trained when the search was stopped goes on from a checkpoint of
its epochs to the same bits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from atom_nas.confirmed.artifact import is_whole, save_trained
from atom_nas.confirmed.cards import whole_cards
from atom_nas.estimators.base import Estimator
from atom_nas.run_folder import UNFINISHED, RunFolder, first_difference
from atom_nas.search_plan import SearchPlan
from atom_nas.stage import Progress, Special, Stage, costliest_first, trial_seed
from atom_nas.trials import Trial
from distill.files import is_temporary, remove_stale_temporaries
from distill.leg import Kept, Leg, glance, trained_network
from distill.synthetic import save_preprocessing
from reports.combinations import ranked
from reports.confirmed import ESTIMATOR, FOLDER, by_class, of_all
from search_spaces.foreign import NniSpace

if TYPE_CHECKING:
    from typing_extensions import Unpack

_OF_SPACE = ("name", "options", "digest", "file", "code", "sources")
_IMAGES = ("training_images", "validation_images", "test_images")
_OTHERS = (
    "version",
    "training_fingerprint",
    "validation_fingerprint",
    "test_fingerprint",
    "preprocessing",
    "balanced",
)
TITLE = "confirm (epochs)"


def best_distinct(run: RunFolder, count: int) -> list[Trial]:
    """The first of the run's ranking that are different networks, in its order.

    Of names of one network, which have the same rank, one is enough: to train it again says nothing new.
    """
    run.save()  # Which names are of one network is read from there.
    trials = {trial.architecture: trial for trial in run.store.trials("proxy")}
    chosen: dict[str, Trial] = {}
    for name in ranked(run.path):
        chosen.setdefault(run.record["same"].get(name, name), trials[name])
    return list(chosen.values())[:count]


def require_same_training(plan: SearchPlan, run: Path) -> None:
    """Networks that are to be chosen among are trained alike: what their cards say is held against the plan.

    Damaged cards say nothing: their networks are trained again.

    Raises:
        ValueError: the first difference; one line.
    """
    if plan.confirm is None:
        return
    settings, folder = plan.confirm.settings(), run / FOLDER
    for path, card in whole_cards(folder):
        before, now = card.model_extra or {}, _training(settings)
        now["seed"] = trial_seed(plan.settings.seed, ESTIMATOR, card.architecture)
        now = {name: value for name, value in now.items() if name != "settings" or name in before}
        there = {name: before.get(name) for name in now}
        found = first_difference("confirm", _as_settings(there), _as_settings(now))
        if found:
            raise ValueError(
                f"{path} is of an architecture that was confirmed with other settings: {found}; go on with "
                f"those settings, or, to train all anew, move {folder} away"
            )


def _training(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a card says of how its network was trained, but for the seed."""
    return {
        **{name: settings[name] for name in _IMAGES},
        "recipe": settings["training"],
        "settings": {name: settings[name] for name in _OTHERS if name in settings},
    }


def _as_settings(entries: Mapping[str, Any]) -> dict[str, Any]:
    """By the names that settings have."""
    return {"training" if name == "recipe" else name: value for name, value in entries.items()}


class MakeStage(Protocol):
    """Makes a stage of the session."""

    def __call__(
        self, title: str, estimator: Estimator, score: str, total: int, **special: Unpack[Special]
    ) -> Stage: ...


class Confirmation:
    """The confirmation of one session.

    Args:
        plan: whose estimator trains.
        folder: the run's.
        stage: makes the stage.
        tell: called with the progress, in epochs.
    """

    def __init__(
        self, plan: SearchPlan, folder: RunFolder, stage: MakeStage, tell: Callable[[Progress], None]
    ) -> None:
        assert plan.confirm is not None
        self._plan, self._run, self._stage, self._tell_session = plan, folder, stage, tell
        self._estimator, self._epochs = plan.confirm, plan.confirm.config.training.epochs
        self._settings = plan.confirm.settings()
        self._models = folder.path / FOLDER
        self._legs: dict[str, Leg] = {}
        self._before: dict[str, Kept] = {}
        self._running: set[str] = set()
        self._preprocessing: Mapping[str, Any] = {}
        self._progress = self._told = Progress(stage=TITLE, done=0, total=0)

    def ensure(self, chosen: Sequence[Trial]) -> None:
        """Train what is not whole, and keep it.

        Raises:
            ValueError: there are networks that were trained with other settings.
            EngineError: the engine cannot work.
            OSError: the run's folder cannot be written; everything before is kept.
        """
        self._tidy()
        positions = costliest_first(chosen)
        self._legs = {name: self._leg(name) for name in positions}
        self._running = {name for name in positions if not self._run.store.get(ESTIMATOR, name)}
        self._before = {name: glance(self._legs[name].checkpoint) for name in self._running}
        stage = self._stage(
            title=TITLE,
            estimator=self._estimator,
            score="validation_accuracy",
            total=len(positions),
            leg=self._legs.__getitem__,
            finish=self._finish,
            on_trial=self._tell,
            on_wait=self._look,
        )
        stage.ensure(positions)
        self._clear()

    def _clear(self) -> None:
        """Remove the checkpoints of these trainings; those of others are of use once they are asked for."""
        folder, own = self._models / UNFINISHED, [leg.checkpoint.name for leg in self._legs.values()]
        if not folder.is_dir():
            return
        remove_stale_temporaries(folder, own)
        for name in own:
            (folder / name).unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()

    def _tidy(self) -> None:
        """Forget trials that have no whole network, failed ones too, and what a kill left half written."""
        require_same_training(self._plan, self._run.path)
        self._models.mkdir(exist_ok=True)
        for path in self._models.iterdir():
            if is_temporary(path):
                path.unlink()
        for trial in self._run.store.trials(ESTIMATOR):
            if not (trial.done and is_whole(self._models, trial.architecture, of_all(trial.scores))):
                self._run.store.discard(ESTIMATOR, trial.architecture)
        self._preprocessing = save_preprocessing(self._models, self._plan.data.preprocessing)

    def _leg(self, architecture: str) -> Leg:
        """All of a training; its checkpoint is of no use to one with other settings."""
        space = self._plan.space
        own = [space.code] if isinstance(space, NniSpace) and space.code else []
        key = json.dumps([architecture, self._plan.settings.seed, self._settings, *own])
        name = f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"
        return Leg(until=self._epochs, checkpoint=self._models / UNFINISHED / name)

    def _finish(self, trial: Trial) -> Trial:
        """Keep the network, and count what earlier sessions spent on it."""
        before = self._before[trial.architecture]
        seconds, cpu_seconds = trial.seconds + before.seconds, trial.cpu_seconds + before.cpu_seconds
        whole = replace(trial, seconds=seconds, cpu_seconds=cpu_seconds)
        if trial.done:
            weights = trained_network(self._legs[trial.architecture].checkpoint)
            save_trained(self._models, weights, self._card(whole))
        return whole

    def _card(self, trial: Trial) -> dict[str, Any]:
        plan, record, classes = self._plan, self._run.record, list(self._plan.synthetic.classes)
        return {
            "architecture": trial.architecture,
            "position": trial.position,
            "space": {name: value for name, value in record["space"].items() if name in _OF_SPACE},
            "dataset": {"name": plan.dataset.name, "fingerprint": plan.dataset.fingerprint},
            "image_shape": plan.data.image_shape,
            "grey_bits": plan.dataset.grey_bits,
            "classes": classes,
            "preprocessing": self._preprocessing,
            **of_all(trial.scores),
            **({"balanced": True} if plan.data.balanced else {}),
            "class_accuracy": {classes[k]: share for k, share in by_class(trial.scores).items()},
            **_training(self._settings),
            "seed": trial.seed,
            "device": trial.device,
            "seconds": trial.seconds,
            "cpu_seconds": trial.cpu_seconds,
            "peak_memory_mb": trial.peak_memory_mb,
            "atom_nas_version": record["atom_nas_version"],
            "environment": record["environment"],
        }

    def _tell(self, progress: Progress) -> None:
        self._progress = progress
        self._running -= {progress.architecture or ""}
        self._told = self._in_epochs()
        self._tell_session(self._told)

    def _look(self) -> None:
        """Tell of epochs that were finished meanwhile, as far as checkpoints say."""
        now = self._in_epochs()
        if now != self._told:
            self._told = now
            self._tell_session(now)

    def _in_epochs(self) -> Progress:
        now, each = self._progress, self._epochs
        running = sum(min(each, glance(self._legs[name].checkpoint).epochs) for name in self._running)
        known = sum(min(each, kept.epochs) for kept in self._before.values())
        return replace(
            now, done=now.done * each + running, total=now.total * each, reused=now.reused * each + known
        )

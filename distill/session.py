"""What watches a distillation: its log, its checkpoints, its progress, its interruption."""

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distill import checkpoint, environment
from distill.checkpoint import CHECKPOINT, State
from distill.files import write_text

LOG = "log.jsonl"
EVALUATIONS = "evaluations.jsonl"
BOARD = "tensorboard"
BEGUN_WITH = "begun_with"

_CURVE_POINTS = 500


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop; what it has done of its iterations is in the checkpoint."""


@dataclass(frozen=True)
class Progress:
    """done of total iterations, the latest loss, seconds spent in this process on the iterations counted
    by `fresh` (those not taken from a checkpoint)."""

    done: int
    total: int
    loss: float
    fresh: int
    seconds: float


class Stopwatch:
    """Wall and processor seconds of this process since the stopwatch was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), _processor_seconds()

    @property
    def wall_seconds(self) -> float:
        """By a clock that never steps back."""
        return time.perf_counter() - self._wall

    @property
    def cpu_seconds(self) -> float:
        """Of all threads, and of the compilers that this process has waited for."""
        return _processor_seconds() - self._cpu

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """What is done within is not counted."""
        wall, cpu = time.perf_counter(), _processor_seconds()
        try:
            yield
        finally:
            self._wall += time.perf_counter() - wall
            self._cpu += _processor_seconds() - cpu


def _processor_seconds() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


class Observer:
    """Looks on at a run: it changes nothing in it, and its time is not the run's."""

    @property
    def run_peak_mb(self) -> float:
        """MiB that the run took at its peak, where the observer's own work would hide it; else 0."""
        return 0.0

    def begin(self, iteration: int) -> None:
        """So many are done; what was seen of later ones, before a kill, will be seen again."""

    def look(self, state: State, total: int) -> None:
        """Called after every iteration with the state so far, of which nothing may be changed."""

    def flush(self) -> None:
        """Called before a checkpoint or the set is written: what was seen will not be seen again."""

    def close(self) -> None:
        """The run has ended, one way or another."""


class Session:
    """The default session keeps nothing and never interrupts: for library use and tests."""

    log_every = 10

    def restore(self) -> State | None:
        """The state to go on from, if any."""
        return None

    def after(self, state: State, total: int) -> None:
        """Called after every iteration with the state so far."""

    def within(self, start: State) -> None:
        """Called now and then in the midst of a long iteration, with the state that it began with."""

    def preparing(self, what: str, done: int, total: int) -> None:
        """Called in the midst of long work that comes before the first iteration."""


class RecordedSession(Session):
    """Keeps a log and checkpoints in a folder.

    Args:
        folder: exists already.
        identity: what the run is; a checkpoint of a run with another identity is refused.
        resume: go on from the folder's checkpoint, if there is one.
        checkpoint_seconds: at most this much work is lost to a kill.
        on_progress: called after every iteration.
        on_stage: told in a few words what is being prepared, and how far that is.
        should_stop: polled after every iteration, and within long ones and preparations, which are then lost;
            once true, the state is saved and `Interrupted` raised.
        stopwatch: started when the work began whose seconds count, preparation included; now if None.
        observer: shown the state after every iteration, before it is saved; the caller closes it.
        preset: where settings came from; checkpoints keep it.
        made_with: see `distill.environment.describe`; a warning tells of a checkpoint that was made with what
            rounds otherwise.
    Raises:
        ValueError: if there is a checkpoint to go on from, and it is another run's or none of this program.
    """

    def __init__(
        self,
        folder: Path,
        identity: dict[str, Any],
        *,
        resume: bool,
        checkpoint_seconds: float = 30.0,
        on_progress: Callable[[Progress], None] | None = None,
        on_stage: Callable[[str], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        stopwatch: Stopwatch | None = None,
        observer: Observer | None = None,
        preset: str | None = None,
        made_with: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._made_with = dict(made_with or {})
        self._preset = {} if preset is None else {"preset": preset}
        self._identity = json.dumps(identity, sort_keys=True)
        self._checkpoint_seconds = checkpoint_seconds
        self._on_progress, self._on_stage = on_progress, on_stage
        self._should_stop = should_stop
        (folder / LOG).touch()  # Methods without iterations leave it empty.
        self._saved = time.perf_counter()
        self._stopwatch, self._iterating = stopwatch or Stopwatch(), Stopwatch()
        self._observer = observer or Observer()
        self._earlier = (0.0, 0.0)
        self._first = 0
        self._found = self._find() if resume else None
        self.curve: tuple[dict[str, float], ...] = ()
        """The loss curve so far; methods that do not iterate leave it empty."""
        _keep_lines(folder / EVALUATIONS, self._found.iteration if self._found else 0)

    @property
    def wall_seconds(self) -> float:
        """Wall time of all attempts that led here, each from the start of its stopwatch."""
        return self._earlier[0] + self._stopwatch.wall_seconds

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all attempts that led here, each from the start of its stopwatch."""
        return self._earlier[1] + self._stopwatch.cpu_seconds

    def peak_memory_mb(self, device: torch.device) -> float | None:
        """MiB at the peak of this process so far, less what watching took where that can be told apart."""
        now = environment.peak_memory_mb(device)
        return None if now is None else max(now, self._observer.run_peak_mb)

    @property
    def goes_on(self) -> bool:
        """Whether there is a state to go on from that was not taken yet."""
        return self._found is not None

    def begin_anew(self) -> None:
        """Empty the log, and put a checkpoint without images in the place of any earlier one.

        From its first second a run can so be resumed by its folder alone, and one that replaces a set be told
        from that set.
        """
        self._rewrite_log([])
        self._save(State(0, torch.empty(0), torch.empty(0)))

    def forget_beginning(self) -> None:
        """Remove the checkpoint if it has no images: of a run that cannot work there is nothing to resume."""
        path = self._folder / CHECKPOINT
        if path.exists() and not len(checkpoint.read(path)[0].images):
            path.unlink()

    def restore(self) -> State | None:
        state, self._found = self._found, None
        self._first = state.iteration if state else 0
        self.curve = tuple(state.curve) if state else ()
        self._rewrite_log(state.curve if state else [])
        with self._uncounted():
            self._observer.begin(self._first)
        return state

    def _find(self) -> State | None:
        """The state in the folder's checkpoint, if it is one of this run and has images already."""
        path = self._folder / CHECKPOINT
        if not path.exists():
            return None
        state, about = checkpoint.read(path)
        identity = json.loads(self._identity)
        if about.identity != identity:
            difference = _first_difference(about.identity, identity)
            raise ValueError(
                f"{path} belongs to another run ({difference}); use the same settings, start afresh with "
                "--overwrite, or name another --out"
            )
        self._earlier = about.wall_seconds, about.cpu_seconds
        if len(state.images):
            self._look_at_environment(about.environment or {})
        return state if len(state.images) else None

    def _look_at_environment(self, before: dict[str, str]) -> None:
        """Keep what earlier attempts were made with, and warn if that is news."""
        earlier = {BEGUN_WITH: before[BEGUN_WITH]} if BEGUN_WITH in before else {}
        if was := environment.other_rounding(before, self._made_with):
            earlier.setdefault(BEGUN_WITH, was)
            warnings.warn(
                f"{self._folder} was begun with {was}: the set may differ, by rounding, from that of a run "
                "that was not interrupted",
                stacklevel=2,
            )
        self._made_with |= earlier

    @property
    def made_with(self) -> dict[str, str]:
        """What this attempt is made with, and with what the first was if that rounds otherwise."""
        return self._made_with

    def after(self, state: State, total: int) -> None:
        self.curve = tuple(state.curve)
        if state.curve and state.curve[-1]["iteration"] == state.iteration:
            with (self._folder / LOG).open("a") as log:
                log.write(json.dumps(state.curve[-1]) + "\n")
        with self._uncounted():
            self._observer.look(state, total)
            if state.iteration == total:  # There will be a set, and a finished run is not seen again.
                self._observer.flush()
        self.within(state)
        if time.perf_counter() - self._saved > self._checkpoint_seconds or state.iteration == total:
            self._save(state)  # The last too: writing the set may fail.
        if self._on_progress:
            loss = state.curve[-1]["loss"] if state.curve else float("nan")
            fresh, seconds = state.iteration - self._first, self._iterating.wall_seconds
            self._on_progress(Progress(state.iteration, total, loss, fresh, seconds))

    @contextmanager
    def _uncounted(self) -> Iterator[None]:
        with self._stopwatch.standing_still(), self._iterating.standing_still():
            yield

    def preparing(self, what: str, done: int, total: int) -> None:
        if self._on_stage:
            self._on_stage(f"{what}: {done} of {total}")
        if self._should_stop and self._should_stop():
            raise Interrupted

    def within(self, start: State) -> None:
        if self._should_stop and self._should_stop():
            self._save(start)
            raise Interrupted

    def _save(self, state: State) -> None:
        """Keep the state, unless it has diverged: the last good checkpoint stays then."""
        self._observer.flush()
        about = {
            "identity": self._identity,
            "wall_seconds": repr(self.wall_seconds),
            "cpu_seconds": repr(self.cpu_seconds),
            "environment": json.dumps(self._made_with),
            **self._preset,
        }
        if checkpoint.write(self._folder / CHECKPOINT, state, about):
            self._saved = time.perf_counter()

    def _rewrite_log(self, curve: list[dict[str, float]]) -> None:
        """Drop lines that a killed attempt wrote after its last checkpoint: they will be written again."""
        write_text(self._folder / LOG, "".join(json.dumps(point) + "\n" for point in curve))


def _keep_lines(path: Path, iteration: int) -> None:
    """Drop lines of later iterations, left by a killed attempt or another run; an empty file goes."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError, TypeError, KeyError):  # a kill may cut the last line
            if json.loads(line)["iteration"] <= iteration:
                kept.append(line + "\n")
    if kept:
        write_text(path, "".join(kept))
    else:
        path.unlink()


def _first_difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> str:
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if before != after:
            if isinstance(before, dict) and isinstance(after, dict):
                return _first_difference(before, after, f"{prefix}{key}.")
            return f"{prefix}{key} was {before!r} and is now {after!r}"
    return "an unknown setting"


def thinned(curve: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """At most some 500 points of a loss curve, its last among them; `log.jsonl` has all."""
    stride = -(-len(curve) // _CURVE_POINTS) or 1
    return [point for i, point in enumerate(curve) if i % stride == 0 or i == len(curve) - 1]

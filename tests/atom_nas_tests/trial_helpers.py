"""Small things that tests give to worker processes; importable there by name."""

import os
import random
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from atom_nas.bench.turns import Finished, Turns, Way
from atom_nas.engines._trial import run_trial
from atom_nas.engines.base import More, Outcome
from atom_nas.estimators.base import SearchData
from atom_nas.trials import Trial, TrialStore
from atom_nas.workload import TrialJob, Workload
from distill.data import Split
from distill.preprocessing import fit_preprocessing
from distill.seeding import stream

SHAPE = (1, 8, 8)
CLASSES = 3
LOST_SECONDS = 3.0


def random_split(count: int, name: str) -> Split:
    """Noise whose class is its brightness, so that something can be learnt."""
    generator = stream(0, name)
    labels = torch.arange(count) % CLASSES
    noise = torch.randint(0, 60, (count, *SHAPE), generator=generator)
    return Split((noise + 90 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)


def search_data() -> SearchData:
    """A learnable problem of three classes of 8x8 images."""
    fit = random_split(60, "fit")
    preprocessing = fit_preprocessing(fit.images, zca=False)
    return SearchData(
        synthetic_images=preprocessing(fit.images[:12]),
        synthetic_labels=fit.labels[:12],
        fit=fit,
        validation=random_split(30, "validation"),
        test=random_split(30, "test"),
        preprocessing=preprocessing,
        classes=CLASSES,
    )


def small_network() -> nn.Module:
    """A network of one convolution."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, CLASSES)
    )


class Recorder(nn.Module):
    """Keeps the batches that it is fed in training."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = small_network()
        self.fed: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.fed.append(images.detach().clone())
        logits: Tensor = self.inner(images)
        return logits


class Drawing(nn.Module):
    """Draws from Python's and NumPy's generators as it is built and in every step."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.scale = small_network(), random.random()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        return logits * (self.scale + random.random() + float(np.random.rand()))


def build(architecture: str) -> nn.Module:
    """A small network, or the misfortune that the name says."""
    misfortune = architecture.partition("-")[0]
    if misfortune == "raises":
        raise RuntimeError("two lines\nof complaint")
    if misfortune == "memory":
        raise MemoryError
    if misfortune == "starved":  # as long as there is no file of the rest of the name
        memory = Path(architecture.partition("-")[2])
        if not memory.exists():
            memory.touch()
            raise MemoryError
    if misfortune == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if misfortune == "unlucky":  # only the first time: the rest of the name is a file that remembers
        memory = Path(architecture.partition("-")[2])
        if not memory.exists():
            memory.touch()
            until = time.process_time() + LOST_SECONDS
            while time.process_time() < until:
                pass
            os.kill(os.getpid(), signal.SIGKILL)
    if misfortune == "hangs":  # and does not mind being asked to end
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        threading.Event().wait()
    if misfortune == "exits":
        os._exit(3)
    if misfortune == "leaves":  # the whole process in another state
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.set_num_threads(2)
        raise RuntimeError("and what it did stays")
    if misfortune == "closes":
        os.closerange(3, 200)
    if misfortune == "draws":
        return Drawing()
    network = small_network()
    if misfortune == "nan":
        nn.init.constant_(network[4].weight, float("nan"))  # type: ignore[index,arg-type]
    return network


class CountingEstimator:
    """No training: the scores are read off the network's fresh weights and the process."""

    name = "counting"

    def __init__(self, bad: float | None = None) -> None:
        self.bad = bad

    def settings(self) -> dict[str, Any]:
        return {"estimator": self.name}

    def score(
        self, network: nn.Module, *, seed: int, device: torch.device, leg: Any = None
    ) -> dict[str, float]:
        weights = sum(float(p.detach().sum()) for p in network.to(device).parameters())
        scores = {"weights": weights, "process": float(os.getpid()), "seed": float(seed)}
        return scores if self.bad is None else scores | {"validation_loss": self.bad}


@dataclass(frozen=True)
class Cramped:
    """A device that has memory for so many workers: each takes a place, a file in a folder, for good.

    No job is done before as many workers as are meant to have found no place.
    """

    work: Workload
    folder: Path
    places: int
    refused: int

    def warm_up(self, device: torch.device) -> None:
        for place in range(self.places):
            with suppress(FileExistsError), (self.folder / str(place)).open("x"):
                return self.work.warm_up(device)
        (self.folder / f"refused-{os.getpid()}").touch()
        raise RuntimeError("CUDA error: out of memory")

    def scores(self, job: TrialJob, device: torch.device) -> dict[str, float]:
        while len(list(self.folder.glob("refused-*"))) < self.refused:
            time.sleep(0.01)
        return self.work.scores(job, device)


@dataclass(frozen=True)
class Noting:
    """Notes in a file how many modules a worker has when it begins to do the work, and after each job."""

    work: Workload
    file: Path

    def _note(self) -> None:
        with self.file.open("a") as file:
            file.write(f"{len(sys.modules)}\n")

    def warm_up(self, device: torch.device) -> None:
        self._note()
        self.work.warm_up(device)

    def scores(self, job: TrialJob, device: torch.device) -> dict[str, float]:
        scores = self.work.scores(job, device)
        self._note()
        return scores


class SuicidalOnArrival:
    """Kills whatever process unpickles it: a worker that dies before it can work."""

    name = "suicidal"

    def settings(self) -> dict[str, Any]:
        return {}

    def score(
        self, network: nn.Module, *, seed: int, device: torch.device, leg: Any = None
    ) -> dict[str, float]:
        raise NotImplementedError

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (7,)


def failing_first(really: Callable[..., Any], message: str) -> Callable[..., Any]:
    """The function, which fails at its first call."""
    calls: list[int] = []

    def fails_first(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError(message)
        return really(*arguments, **options)

    return fails_first


def stored(run: Path, estimator: str) -> list[Trial]:
    """The trials of a run that an estimator scored."""
    with TrialStore.open(run / "trials.sqlite") as store:
        return store.trials(estimator)


def trial(architecture: str = "w32-d1", **changes: Any) -> Trial:
    """A finished proxy trial."""
    made = Trial(
        estimator="proxy",
        architecture=architecture,
        position=0,
        status="done",
        reason=None,
        scores={"validation_accuracy": 0.1 + 0.2},
        seconds=1.5,
        cpu_seconds=1.25,
        peak_memory_mb=300.0,
        cached=False,
        seed=2**62 + 1,
        device="cpu",
    )
    return replace(made, **changes)


def best(run: Path) -> list[Trial]:
    """A run's proxy trials, of the highest validation accuracy first, of equals the first proposed."""
    return sorted(stored(run, "proxy"), key=lambda each: -each.scores["validation_accuracy"])


class InlineEngine:
    """Runs trials in the test's own process, and remembers which."""

    def __init__(self, workload: Workload, ran: list[tuple[str, str]]) -> None:
        self._workload = workload
        self._ran = ran

    def run(
        self,
        jobs: Sequence[TrialJob],
        on_wait: Callable[[], None] | None = None,
        more: More[TrialJob] | None = None,
    ) -> Iterator[Outcome[TrialJob]]:
        pending = deque(jobs)
        while pending.extend(more() if more else ()) or pending:
            job = pending.popleft()
            if on_wait:
                on_wait()
            self._ran.append((job.estimator, job.architecture))
            yield run_trial(job, self._workload, torch.device("cpu"))[0]

    def close(self) -> None:
        """Nothing runs between trials."""


class InlineTurns(Turns):
    """Turns of this process, measured, until there have been enough."""

    def __init__(self, repeats: int) -> None:
        self.seconds: list[float] = []
        self._left, self._started = repeats, 0.0

    def wait(self) -> None:
        now = time.perf_counter()
        if self._started:
            self.seconds.append(now - self._started)
        if self._left == 0:
            raise Finished
        self._left -= 1
        self._started = time.perf_counter()


def take_turns_inline(ways: Mapping[str, Way], repeats: int) -> dict[str, list[float]]:
    """As `take_turns`, in this process and one way after the other."""
    found = {}
    for name, way in ways.items():
        turns = InlineTurns(repeats)
        with suppress(Finished):
            way.run(turns, *way.arguments)
        found[name] = turns.seconds
    return found


def note_turns(turns: Turns, device: torch.device, file: Path) -> None:
    """A way that writes down when it runs."""
    while True:
        turns.wait()
        with file.open("a") as out:
            out.write(f"{file.stem} {torch.get_num_threads()} {torch.ones(2**20).sum()}\n")


def fail_turns(turns: Turns, device: torch.device) -> None:
    """A way that cannot."""
    turns.wait()
    raise FloatingPointError("no number")

"""What may be watched of a distillation while it runs: TensorBoard, and accuracies on the way.

Both look on only (see `distill.session.Observer`): the set is the same to the bit, watched or not, and their
seconds are not among those of the set. Letters: K classes, I images a class, C channels, H x W pixels.
"""

import importlib
import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from distill import environment
from distill.checkpoint import State
from distill.data import RealDataset, Split
from distill.evaluation import Evaluator, default_network
from distill.methods.base import Problem
from distill.pictures import as_pictures, grid
from distill.seeding import derive_seed
from distill.session import EVALUATIONS, Observer, Stopwatch
from distill.synthetic import SyntheticSet
from distill.training import TrainingConfig

if TYPE_CHECKING:
    from distill.settings import DistillSettings

EPOCHS = 100  # a third of what `atom-nas evaluate` trains for: enough to see a set get better
_MOST_CLASSES, _MOST_IMAGES = 20, 10  # of a class, in a picture: larger ones nobody can see whole
_FLUSH_SECONDS = 10


def require_tensorboard() -> None:
    """Refuse to go on where TensorBoard's files cannot be written.

    Raises:
        ValueError: saying how to install it.
    """
    try:
        importlib.import_module("torch.utils.tensorboard")
    except ImportError:
        raise ValueError(
            "TensorBoard is not installed: pip install 'atom-nas[tensorboard]', or leave out --tensorboard"
        ) from None


class Board(Observer):
    """Losses by part at every logged iteration, and the images as a grid, for TensorBoard.

    Args:
        folder: of this run alone. What an earlier attempt wrote there of iterations that are now done again
            is withdrawn by the `purge_step` of the new event file.
        images_every: iterations from one grid to the next; the last iteration has one in any case.
        factor: of multi-formation; the grid shows the images as they are stored.
    """

    def __init__(self, folder: Path, problem: Problem, images_every: int, factor: int = 1) -> None:
        require_tensorboard()
        self._factor = factor
        self._folder, self._problem, self._images_every = folder, problem, images_every
        self._writer: Any = None

    def begin(self, iteration: int) -> None:
        writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        self._writer = writer(str(self._folder), purge_step=iteration + 1, flush_secs=_FLUSH_SECONDS)

    def look(self, state: State, total: int) -> None:
        point = state.curve[-1] if state.curve else {}
        if point.get("iteration") == state.iteration:
            for name, value in point.items():
                if name != "iteration":
                    tag = "loss/total" if name == "loss" else f"loss/{name}"
                    self._writer.add_scalar(tag, value, state.iteration)
        if _is_due(state.iteration, total, self._images_every):
            self._writer.add_image("images", self._sheet(state.images), state.iteration, dataformats="HWC")

    def show_accuracy(self, accuracy: float, iteration: int) -> None:
        """A point of the curve of accuracies in [0, 1]."""
        self._writer.add_scalar("validation/accuracy", accuracy, iteration)

    def flush(self) -> None:
        if self._writer:
            self._writer.flush()

    def close(self) -> None:
        if self._writer:
            self._writer.close()

    def _sheet(self, images: Tensor) -> "np.ndarray[Any, Any]":
        """The first images of the first classes, a row a class: uint8 (height, width, 3)."""
        shape, classes = self._problem.image_shape, len(self._problem.class_numbers)
        chosen = images.detach().cpu().view(classes, -1, *shape)[:_MOST_CLASSES, :_MOST_IMAGES]
        labels = torch.arange(len(chosen)).repeat_interleave(chosen.shape[1])
        pictures = as_pictures(self._problem.preprocessing, chosen.flatten(0, 1), self._factor)
        return np.asarray(grid(pictures, labels))


class Milestones(Observer):
    """A short training on the images so far, every so many iterations, scored on held-out images.

    Each is a line of `evaluations.jsonl`: `iteration`; `accuracy` in [0, 1], null if the training diverged;
    `n` validation images; the seconds it took. Initial weights, batches and augmentation are the same each
    time, so that what differs is the images.

    Args:
        every: iterations from one to the next; the last iteration has one in any case.
        held_out: of the training images, as a dataset; of a shard, its own classes' images are scored on.
        folder: of the artifact.
        factor: of multi-formation: each of the images holds factor x factor that are trained on.
        show: told accuracy and iteration.
    """

    def __init__(
        self,
        every: int,
        problem: Problem,
        held_out: RealDataset,
        *,
        folder: Path,
        factor: int = 1,
        show: Callable[[float, int], None] | None = None,
    ) -> None:
        self._every, self._problem, self._dataset = every, problem, held_out
        self._validation, self._folder = _of_classes(held_out.test, problem.class_numbers), folder
        self._factor = factor
        self._show = show or (lambda *_: None)
        self._run_peak_mb = 0.0

    @property
    def run_peak_mb(self) -> float:
        return self._run_peak_mb

    def look(self, state: State, total: int) -> None:
        if not _is_due(state.iteration, total, self._every):
            return
        device = self._problem.device
        self._run_peak_mb = max(self._run_peak_mb, environment.peak_memory_mb(device) or 0.0)
        stopwatch = Stopwatch()
        accuracy = self._accuracy(state.images)
        line = {
            "iteration": state.iteration,
            "accuracy": accuracy,
            "n": len(self._validation),
            "wall_seconds": stopwatch.wall_seconds,
            "cpu_seconds": stopwatch.cpu_seconds,
        }
        with (self._folder / EVALUATIONS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if accuracy is not None:
            self._show(accuracy, state.iteration)
        environment.begin_measuring(device)  # The run's memory is measured on, from what it has in use now.

    def _accuracy(self, images: Tensor) -> float | None:
        problem = self._problem
        now = SyntheticSet(
            images.detach().cpu().clone(),
            problem.labels,
            problem.classes,
            problem.preprocessing,
            {"factor": self._factor},
            self._folder,
        )
        evaluator = Evaluator(
            now,
            self._dataset,
            config=TrainingConfig(epochs=EPOCHS).suited_to(self._dataset.name),
            seed=derive_seed(problem.seed, "milestones"),
            device=problem.device,
            test=self._validation,
        )
        try:
            return evaluator.accuracy("synthetic", default_network(problem.image_shape), repeat=0)
        except FloatingPointError:
            return None


class _Together(Observer):
    """Several observers as one."""

    def __init__(self, members: Sequence[Observer]) -> None:
        self._members = members

    @property
    def run_peak_mb(self) -> float:
        """The largest of theirs."""
        return max((member.run_peak_mb for member in self._members), default=0.0)

    def begin(self, iteration: int) -> None:
        for member in self._members:
            member.begin(iteration)

    def look(self, state: State, total: int) -> None:
        for member in self._members:
            member.look(state, total)

    def flush(self) -> None:
        for member in self._members:
            member.flush()

    def close(self) -> None:
        for member in self._members:
            member.close()


def observer(
    settings: "DistillSettings",
    held_out: RealDataset | None,
    problem: Problem,
    tell: Callable[[str], None],
) -> Observer:
    """What `settings` ask for, as one.

    Args:
        held_out: what milestones are scored on, where there are any: the validation split as both splits.
        tell: told how to see what is written.
    """
    members: list[Observer] = []
    board = None
    factor, steps = settings.config.across, settings.config.steps
    if settings.board and steps:
        images_every = settings.images_every or -(-steps // 10)
        board = Board(settings.board, problem, images_every, factor)
        members.append(board)
        tell(f"to watch: tensorboard --logdir {shlex.quote(str(settings.board))}")
    if settings.evaluate_every and held_out:
        show = board.show_accuracy if board else None
        every, out = settings.evaluate_every, settings.out
        members.append(Milestones(every, problem, held_out, folder=out, factor=factor, show=show))
    return _Together(members)


def _of_classes(split: Split, numbers: Sequence[int]) -> Split:
    return split.take(torch.nonzero(torch.isin(split.labels, torch.tensor(numbers))).flatten())


def _is_due(iteration: int, total: int, every: int) -> bool:
    return iteration % every == 0 or iteration == total


def costs(folder: Path) -> dict[str, float] | None:
    """How many milestones there were and what they cost, for the card; None if there were none."""
    path = folder / EVALUATIONS
    if not path.exists():
        return None
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    spent = {name: sum(line[name] for line in lines) for name in ("wall_seconds", "cpu_seconds")}
    return {"evaluations": len(lines), **spent}

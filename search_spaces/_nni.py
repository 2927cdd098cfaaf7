"""A search space as NNI sees it, and NNI's strategies driving our own evaluation.

The only file that touches NNI (3.0, no longer maintained). A space's choices become NNI mutables with one
constraint beside them, that the architecture fits the images, so NNI itself refuses a misfit. `explore` runs
an NNI strategy over an engine that only collects proposals and hands them out in batches of a fixed size:
what is proposed depends on the seed and the scores, never on how many workers there are or who is fastest.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import nni.common.framework as nni_framework
import numpy as np
from torch import nn

from search_spaces.base import Architecture, ImageShape, Space, choose, count_fitting, enumerate_space

Evaluate = Callable[[Sequence[Architecture]], Sequence[float | None]]


@contextmanager
def _quiet() -> Iterator[None]:
    """Mute NNI's own loggers, which print to standard output; nobody else's."""
    logger = logging.getLogger("nni")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _plain_imports() -> Iterator[None]:
    """Let `nni.nas` be imported without PyTorch Lightning and without warnings about newer torch classes.

    With a default framework, NNI imports its Lightning evaluators whether wanted or not, and fails where
    Lightning is missing. The default a user has set is put back.
    """
    framework = nni_framework.get_default_framework()
    nni_framework.set_default_framework("none")
    try:
        with _quiet(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* is found to be not a nn.Module", RuntimeWarning)
            yield
    finally:
        nni_framework.set_default_framework(framework)


with _plain_imports():
    import nni
    from nni.algorithms.hpo.tpe_tuner import TpeArguments, TpeTuner
    from nni.common.hpo_utils import format_parameters
    from nni.mutable import Categorical, Constraint, ConstraintViolation, MutableAnnotation
    from nni.nas.execution import ExecutionEngine
    from nni.nas.execution.event import FinalMetricEvent, TrainingEndEvent
    from nni.nas.nn.pytorch import ModelSpace
    from nni.nas.space import ModelStatus, SimplifiedModelSpace
    from nni.nas.strategy import GridSearch, Random, RegularizedEvolution
    from nni.nas.strategy.hpo import HPOTunerStrategy
    from nni.nas.strategy.utils import RetrySamplingHelper


def _first_fitting(space: Space, image_shape: ImageShape) -> Architecture:
    for architecture in enumerate_space(space):
        if space.misfit(architecture, image_shape) is None:
            return architecture
    raise ValueError(f"no architecture of the space {space.name!r} fits images of shape {image_shape}")


class _Fits(Constraint):  # type: ignore[misc]
    """NNI's form of "this architecture fits such images"."""

    def __init__(self, space: Space, image_shape: ImageShape, choices: Sequence[Categorical]) -> None:
        self.label = "fits"
        self._space = space
        self._image_shape = image_shape
        self._choices = choices
        self._first = space.sample_of(_first_fitting(space, image_shape))

    def leaf_mutables(self, is_leaf: Callable[[Any], bool]) -> Iterable[Any]:
        yield from self._choices
        yield from super().leaf_mutables(is_leaf)

    def default(self, memo: dict[str, Any] | None = None) -> None:
        """Fill the memo with the first architecture that fits: NNI would look for one at random."""
        memo = {} if memo is None else memo
        for choice, value in self._first.items():
            memo.setdefault(choice, value)
        self.freeze(memo)

    def check_contains(self, sample: dict[str, Any]) -> Exception | None:
        for choice in self._choices:
            invalid: Exception | None = choice.check_contains(sample)
            if invalid is not None:
                return invalid
        architecture = self._space.architecture(sample)
        reason = self._space.misfit(architecture, self._image_shape)
        return None if reason is None else ConstraintViolation(f"{architecture}: {reason}")


class _SpaceModel(ModelSpace):  # type: ignore[misc]
    """A `Space` as an NNI model space; labels are the names of the choices."""

    def __init__(self, space: Space, image_shape: ImageShape, classes: int) -> None:
        super().__init__()
        self._recipe = (space, image_shape, classes)
        choices = [nni.choice(label, list(values)) for label, values in space.choices.items()]
        # The constraint comes first because NNI fixes each mutable to a default as it is added, and only
        # the constraint's default is sure to be an architecture that fits.
        for mutable in (_Fits(space, image_shape, choices), *choices):
            self.add_mutable(mutable)

    @classmethod
    def create_fixed_module(
        cls, sample: Mapping[str, Any], space: Space, image_shape: ImageShape, classes: int
    ) -> nn.Module:
        """What NNI calls to make the module when it has only the sample and our arguments."""
        return space.build(space.architecture(sample), image_shape, classes)

    def freeze(self, sample: dict[str, Any]) -> nn.Module:
        self.validate(sample)
        return self.create_fixed_module(sample, *self._recipe)


def model_space(space: Space, image_shape: ImageShape, classes: int) -> Any:
    """The space as an `nni.nas.nn.pytorch.ModelSpace`, for NNI's own strategies and experiments.

    Labels are the names of the space's choices. A sample that does not fit the images is invalid to NNI, and
    freezing a valid one gives `space.build(architecture, image_shape, classes)`.

    Raises:
        ValueError: no architecture fits images of this shape.
    """
    return _SpaceModel(space, image_shape, classes)


class _BatchEngine(ExecutionEngine):  # type: ignore[misc]
    """An NNI execution engine that evaluates proposals in this thread, `batch` at a time and in order.

    Scores go back in the order of proposal. A score that is None or not finite marks the model as failed.
    """

    def __init__(self, space: Space, evaluate: Evaluate, *, samples: int, batch: int | None) -> None:
        super().__init__()
        self._space = space
        self._evaluate = evaluate
        self._samples = samples
        self._batch = samples if batch is None else batch
        self._submitted = 0
        self._waiting: list[Any] = []

    def submit_models(self, *models: Any) -> None:
        self._waiting += models
        self._submitted += len(models)

    def idle_worker_available(self) -> bool:
        """Always, once a full batch is out of the way: so NNI's strategies never sleep."""
        if len(self._waiting) >= self._batch:
            self.wait_models()
        return True

    def budget_available(self) -> bool:
        return self._submitted < self._samples

    def wait_models(self, *models: Any) -> None:  # noqa: ARG002
        """Evaluate all that waits; whichever models are asked for are among them or done."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        scores = self._evaluate([self._space.architecture(model.sample) for model in waiting])
        for model, score in zip(waiting, scores, strict=True):
            self._report(model, score)

    def _report(self, model: Any, score: float | None) -> None:
        if score is None or not math.isfinite(score):
            self.dispatch_model_event(TrainingEndEvent(model, ModelStatus.Failed))
            return
        self.dispatch_model_event(FinalMetricEvent(model, float(score)))
        self.dispatch_model_event(TrainingEndEvent(model, ModelStatus.Trained))


# NNI gives up after 500 draws without a new one, too few for the last of 720. Here nobody is asked for
# more architectures than fit, so there is always a new one to be found and patience costs nothing.
_PATIENCE = 1_000_000


class _Random(Random):  # type: ignore[misc]
    """Random search without repeats, which asks for budget before it draws and so never draws in vain."""

    _duplicate_retry = _PATIENCE

    def _run(self) -> None:
        while self.wait_for_resource():
            self.engine.submit_models(self._retry_helper.retry(self.random, self.model_space))


class _Evolution(RegularizedEvolution):  # type: ignore[misc]
    """Aging evolution that draws at random where NNI's crashes (no survivor yet) or ends (no new mutant)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._mutation_helper = RetrySamplingHelper(100)
        self._retry_helper = RetrySamplingHelper(_PATIENCE)

    def new_individual(self) -> Any:
        mutant = self._mutation_helper.retry(super().new_individual) if self._population else None
        return self._retry_helper.retry(self.random) if mutant is None else mutant


class _Tpe(HPOTunerStrategy):  # type: ignore[misc]
    """NNI's TPE tuner without its sleeps, proposing the nearest new architecture that fits.

    NNI's own crashes on a misfit, and answers a repeated suggestion with the next point of a grid: as a few
    categorical choices soon repeat themselves, that made it worse than random search.
    """

    def __init__(self, *, seed: int, **options: Any) -> None:
        arguments = TpeArguments(**options)._asdict()
        super().__init__(TpeTuner(optimize_mode="maximize", seed=seed, tpe_args=arguments))
        self._left: list[dict[Any, int]] = []

    def _run(self) -> None:
        mutables = self.model_space.simplify().items()
        choices = {label: m.as_legacy_dict() for label, m in mutables if not isinstance(m, MutableAnnotation)}
        self.tuner.update_search_space(choices)
        self._left = [format_parameters(model.sample, self.tuner.space) for model in self.model_space.grid()]
        self.tuner.dedup = self._nearest_new
        while self._left and self.wait_for_resource():
            self._model_count += 1
            model = self.model_space.freeze(self.tuner.generate_parameters(self._model_count))
            self._model_to_id[model] = self._model_count
            self.engine.submit_models(model)

    def _nearest_new(self, suggested: dict[Any, int]) -> dict[Any, int]:
        """Of those not yet proposed, one that differs from the suggestion in the fewest choices."""
        distances = [sum(left[key] != value for key, value in suggested.items()) for left in self._left]
        least = min(distances)
        nearest = [place for place, distance in enumerate(distances) if distance == least]
        return self._left.pop(nearest[self.tuner.rng.integers(len(nearest))])


_STRATEGIES: dict[str, Callable[..., Any]] = {
    "random": _Random,
    "grid": partial(GridSearch, shuffle=False),
    "evolution": _Evolution,
    "tpe": _Tpe,
}


def explore(
    space: Space,
    image_shape: ImageShape,
    *,
    strategy: str,
    samples: int,
    seed: int,
    options: Mapping[str, Any],
    batch: int | None,
    evaluate: Evaluate,
) -> None:
    """Let an NNI strategy propose `samples` different architectures that fit, and learn from their scores.

    Args:
        strategy: `random`, `grid`, `evolution` or `tpe`.
        samples: how many to propose; all that fit where there are fewer.
        seed: of the strategy's own generator, >= 0; `grid` draws nothing.
        options: keyword arguments of the strategy.
        batch: evaluate this many proposals together (fewer the last time); None: all of them. The strategy
            proposes a batch before it sees any of its scores.
        evaluate: gives each architecture's score, higher is better, or None if it failed. What it raises
            passes through.
    Raises:
        ValueError: unknown strategy, or no architecture fits images of this shape.
    """
    make = _STRATEGIES[choose("strategy", strategy, _STRATEGIES)]
    fitting, _ = count_fitting(space, image_shape)
    # Nothing is built here, so the number of classes does not matter.
    models = SimplifiedModelSpace.from_model(model_space(space, image_shape, classes=1))
    engine = _BatchEngine(space, evaluate, samples=min(samples, fitting), batch=batch)
    nni_seed = int(np.random.SeedSequence(seed).generate_state(1)[0])  # NNI takes 32 bits
    with _quiet():
        make(seed=nni_seed, **options)(models, engine)
        engine.wait_models()

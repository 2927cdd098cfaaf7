"""A search space as NNI sees it, NNI's own spaces as we see them, and its strategies driving our evaluation.

The only file that touches NNI (3.0, no longer maintained). A space's choices become NNI mutables with one
constraint beside them, that the architecture fits the images, so NNI itself refuses a misfit. `explore` runs
an NNI strategy over an engine that only collects proposals and hands them out in batches of a fixed size:
what is proposed depends on the seed and the scores, never on how many workers there are or who is fastest.
The other way round, `declared` reads the choices of a `ModelSpace`, and `frozen` builds what they choose.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import nni.common.framework as nni_framework
import numpy as np
import torch
from torch import nn

from search_spaces.base import (
    LISTED,
    Architecture,
    ImageShape,
    Space,
    choose,
    count_fitting,
    first_fitting,
    is_listed,
    most_listed,
)
from search_spaces.bounded import BUILT, Bounded

Evaluate = Callable[[Sequence[Architecture]], Sequence[float | None]]

_LIGHTNING = "nni.nas.oneshot.pytorch"
_MOST_SUBSETS = 4096


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
    Lightning is missing. The default a user has set is put back. NNI's hub takes two classes from a package
    whose other files need Lightning: meanwhile an empty module stands in for the package itself.
    """
    framework = nni_framework.get_default_framework()
    nni_framework.set_default_framework("none")
    stand_in = ModuleType(_LIGHTNING)
    stand_in.__path__ = [str(Path(nni_framework.__file__).parents[2].joinpath(*_LIGHTNING.split(".")))]
    sys.modules.setdefault(_LIGHTNING, stand_in)
    try:
        with _quiet(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* is found to be not a nn.Module", RuntimeWarning)
            yield
    finally:
        nni_framework.set_default_framework(framework)
        if sys.modules.get(_LIGHTNING) is stand_in:
            del sys.modules[_LIGHTNING]


with _plain_imports():
    import nni
    from nni.algorithms.hpo.tpe_tuner import TpeArguments, TpeTuner
    from nni.common.hpo_utils import deformat_parameters, format_parameters
    from nni.mutable import (
        Categorical,
        CategoricalMultiple,
        Constraint,
        ConstraintViolation,
        MutableAnnotation,
        SampleValidationError,
    )
    from nni.nas.execution import ExecutionEngine
    from nni.nas.execution.event import FinalMetricEvent, TrainingEndEvent
    from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace, Repeat
    from nni.nas.space import ModelStatus, SimplifiedModelSpace, model_context
    from nni.nas.strategy import GridSearch, Random, RegularizedEvolution
    from nni.nas.strategy.hpo import HPOTunerStrategy
    from nni.nas.strategy.utils import RetrySamplingHelper


class _Fits(Constraint):  # type: ignore[misc]
    """NNI's form of "this architecture fits such images"."""

    def __init__(self, space: Space, image_shape: ImageShape, choices: Sequence[Categorical]) -> None:
        self.label = "fits"
        self._space = space
        self._image_shape = image_shape
        self._choices = choices
        self._first = space.sample_of(first_fitting(space, image_shape))

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


# NNI gives up after 500 draws without a new one, too few for the last of 720. Here nobody is asked for more
# architectures than fit, where their number is known: a new one can be found, and patience costs nothing; but
# see `_patient`.
_PATIENCE = 1_000_000
_PATIENCE_WITH_COSTS = 2_000


class _Patience(RetrySamplingHelper):  # type: ignore[misc]
    """How long a new architecture that fits is looked for: the same on every machine."""

    def __init__(self, space: Space) -> None:
        self._draws = _PATIENCE if most_listed(space) >= LISTED else _PATIENCE_WITH_COSTS
        super().__init__(self._draws)
        self._space = space

    def attempts(self, most: int = _PATIENCE) -> Iterator[int]:
        """Numbers of draws, until there were too many, or too many networks have been built to count them."""
        begun = self._counted
        for attempt in range(min(most, self._draws)):
            if self._counted - begun > BUILT:
                return
            yield attempt

    def retry(self, function: Any, *arguments: Any, **options: Any) -> Any:
        """What the function gives as soon as it draws something valid; None after too many attempts."""
        for _ in self.attempts():
            with suppress(SampleValidationError):
                return function(*arguments, **options)
        return None

    @property
    def _counted(self) -> int:
        return self._space.counted if isinstance(self._space, Bounded) else 0


class _Random(Random):  # type: ignore[misc]
    """Random search without repeats, which asks for budget before it draws and so never draws in vain."""

    def _run(self) -> None:
        while self.wait_for_resource():
            model = self._retry_helper.retry(self.random, self.model_space)
            if model is None:
                return
            self.engine.submit_models(model)


class _Grid(GridSearch):  # type: ignore[misc]
    """Grid search that takes our word that the space is finite: NNI would list it twice to find out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(shuffle=False, **options)

    def _space_validation(self, model_space: Any) -> bool:  # noqa: ARG002
        return True


class _Evolution(RegularizedEvolution):  # type: ignore[misc]
    """Aging evolution that draws at random where NNI's crashes (no survivor yet) or ends (no new mutant)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._mutation_helper = RetrySamplingHelper(100)

    def new_individual(self) -> Any:
        mutant = self._mutation_helper.retry(super().new_individual) if self._population else None
        return self._retry_helper.retry(self.random) if mutant is None else mutant


class _Tpe(HPOTunerStrategy):  # type: ignore[misc]
    """NNI's TPE tuner without its sleeps, proposing the nearest new architecture that fits.

    NNI's own crashes on a misfit, and answers a repeated suggestion with the next point of a grid: as a few
    categorical choices soon repeat themselves, that made it worse than random search. Where there are too
    many architectures to list, the nearest is looked for by drawing more and more choices anew.
    """

    listed: bool
    patience: _Patience

    def __init__(self, *, seed: int, **options: Any) -> None:
        arguments = TpeArguments(**options)._asdict()
        super().__init__(TpeTuner(optimize_mode="maximize", seed=seed, tpe_args=arguments))
        self._left: list[dict[Any, int]] = []
        self._proposed: set[tuple[int, ...]] = set()

    def _run(self) -> None:
        mutables = self.model_space.simplify().items()
        choices = {label: m.as_legacy_dict() for label, m in mutables if not isinstance(m, MutableAnnotation)}
        self.tuner.update_search_space(choices)
        if self.listed:
            grid = self.model_space.grid()
            self._left = [format_parameters(model.sample, self.tuner.space) for model in grid]
        self.tuner.dedup = self._nearest_new if self.listed else self._near_new
        while (self._left or not self.listed) and self.wait_for_resource():
            self._model_count += 1
            try:
                model = self.model_space.freeze(self.tuner.generate_parameters(self._model_count))
            except nni.NoMoreTrialError:
                return
            self._model_to_id[model] = self._model_count
            self.engine.submit_models(model)

    def _nearest_new(self, suggested: dict[Any, int]) -> dict[Any, int]:
        """Of those not yet proposed, one that differs from the suggestion in the fewest choices."""
        distances = [sum(left[key] != value for key, value in suggested.items()) for left in self._left]
        least = min(distances)
        nearest = [place for place, distance in enumerate(distances) if distance == least]
        return self._left.pop(nearest[self.tuner.rng.integers(len(nearest))])

    def _near_new(self, suggested: dict[Any, int]) -> dict[Any, int]:
        """One not yet proposed that fits; with every hundred draws in vain one more choice is drawn anew."""
        keys, rng = list(suggested), self.tuner.rng
        for attempt in self.patience.attempts(LISTED):
            near = dict(suggested)
            for place in rng.choice(len(keys), min(-(-attempt // 100), len(keys)), replace=False):
                near[keys[place]] = int(rng.integers(self.tuner.space[keys[place]].size))
            values = tuple(near.values())
            if values not in self._proposed and self.model_space.contains(
                deformat_parameters(near, self.tuner.space)
            ):
                self._proposed.add(values)
                return near
        raise nni.NoMoreTrialError("no new architecture that fits was found")


_STRATEGIES: dict[str, Callable[..., Any]] = {
    "random": _Random,
    "grid": _Grid,
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
        samples: how many to propose; all that fit where there are fewer (of a space too large to look
            through, all that could be found).
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
    engine = _BatchEngine(
        space, evaluate, samples=samples if fitting is None else min(samples, fitting), batch=batch
    )
    nni_seed = int(np.random.SeedSequence(seed).generate_state(1)[0])  # NNI takes 32 bits
    with _quiet():
        _patient(make(seed=nni_seed, **options), space)(models, engine)
        engine.wait_models()


def _patient(strategy: Any, space: Space) -> Any:
    """The strategy, which looks for a new architecture as long as it is worth it."""
    if isinstance(strategy, _Tpe):
        strategy.listed, strategy.patience = is_listed(space), _Patience(space)
    elif isinstance(strategy, _Random | _Evolution):
        strategy._retry_helper = _Patience(space)
    return strategy


def importing() -> Any:
    """A context in which a user's module may import whatever of NNI it likes."""
    return _plain_imports()


def hub_class(name: str) -> type[Any]:
    """A class of `nni.nas.hub.pytorch`."""
    with _plain_imports():
        import nni.nas.hub.pytorch as hub
    found: type[Any] = getattr(hub, name)
    return found


def is_model_space(value: Any) -> bool:
    """Whether it is a class of model spaces, and not NNI's base itself."""
    return isinstance(value, type) and issubclass(value, ModelSpace) and value is not ModelSpace


def parameters(kind: type[Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a model space's constructor, less `self`; NNI hides them behind a wrapper."""
    for each in kind.__mro__:
        constructor = each.__dict__.get("_init_wrapped") or each.__dict__.get("__init__")
        # A class without a constructor of its own has wrapped the wrapper of its parent.
        if constructor is not None and not constructor.__qualname__.endswith(".new_init"):
            return dict(list(inspect.signature(constructor).parameters.items())[1:])
    return {}


@dataclass(frozen=True)
class Declared:
    """What a model space leaves open.

    Attributes:
        values: label -> what NNI's sample may hold there, labels in order.
        constraints: what has to hold between choices, by label.
    """

    values: dict[str, tuple[Any, ...]]
    constraints: dict[str, Constraint]

    def violation(self, sample: Mapping[str, Any]) -> str | None:
        """Why the space's own constraints refuse a sample; None if they do not."""
        for label, constraint in self.constraints.items():
            error = constraint.check_contains(dict(sample))
            if error is not None:
                return f"the space's constraint {label!r} does not hold"
        return None


def declared(kind: type[Any], arguments: Mapping[str, Any]) -> Declared:
    """The choices of a model space made with these arguments; torch's generator is left as it was.

    Raises:
        ValueError: a choice is not among listed values.
        Exception: whatever the space's constructor raises.
    """
    with _quiet(), torch.random.fork_rng(devices=[]):
        mutables = dict(sorted(kind(**arguments).simplify().items()))
    constraints = {label: each for label, each in mutables.items() if isinstance(each, Constraint)}
    chosen = {label: each for label, each in mutables.items() if not isinstance(each, MutableAnnotation)}
    return Declared({label: _values(label, each) for label, each in chosen.items()}, constraints)


def _values(label: str, mutable: Any) -> tuple[Any, ...]:
    """All that a sample may hold for one choice; for a choice of several things, lists of them."""
    if isinstance(mutable, Categorical):
        return tuple(mutable.values)
    if not isinstance(mutable, CategoricalMultiple):
        raise ValueError(f"the choice {label!r} is not among listed values: declare it by nni.choice")
    count = len(mutable.values)
    sizes = range(count + 1) if mutable.n_chosen is None else [mutable.n_chosen]
    if sum(math.comb(count, size) for size in sizes) > _MOST_SUBSETS:
        raise ValueError(
            f"the choice {label!r} is among more than {_MOST_SUBSETS} subsets: offer fewer inputs"
        )
    return tuple(list(each) for size in sizes for each in itertools.combinations(mutable.values, size))


def frozen(kind: type[Any], arguments: Mapping[str, Any], sample: Mapping[str, Any]) -> nn.Module:
    """The network that a sample chooses, drawn from torch's generator by the space's own constructor.

    Raises:
        ValueError: a choice is still open in it.
        Exception: whatever the space's constructor raises.
    """
    with _quiet(), model_context(dict(sample)):
        network: nn.Module = kind(**arguments)
    for name, module in network.named_modules():
        if isinstance(module, LayerChoice | InputChoice | Repeat):
            raise ValueError(f"the choice of {name!r} stays open: make it in the space's constructor")
    return network

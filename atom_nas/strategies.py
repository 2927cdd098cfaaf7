"""Search strategies by name: NNI's algorithms, with our defaults, driving our evaluation.

Neither torch nor NNI is imported before `run_strategy` is called.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from atom_nas.names import choose

if TYPE_CHECKING:
    from search_spaces.base import Architecture, ImageShape, Space


_GOOD_AT_MOST = 25  # NNI's tuner, whatever gamma says


@dataclass(frozen=True, kw_only=True)
class RandomConfig:
    """No options: each fitting architecture is as likely as any other, and none comes twice."""

    def resolved(self, samples: int) -> RandomConfig:  # noqa: ARG002
        return self


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """No options, and the seed does not matter."""

    def resolved(self, samples: int) -> GridConfig:  # noqa: ARG002
        return self


@dataclass(frozen=True, kw_only=True)
class EvolutionConfig:
    """Real et al., "Regularized evolution for image classifier architecture search", AAAI 2019.

    NNI's own defaults (population 100, tournament 25, mutation 0.05) are for thousands of samples: with
    fewer than 100 they are random search.

    Attributes:
        population_size: how many of the latest survivors may become parents; as many are drawn at random
            first. None: 16, or a third of the samples if that is less.
        sample_size: the parent is the best of this many, drawn from the population. None: a quarter of the
            population, but at least 2.
        mutation_prob: chance of each choice to be drawn anew; 0.2 is about one of the ConvNets' five.
        crossover: each choice comes from either of two parents.
        batch: architectures proposed and scored together. It is not the number of workers: results are the
            same however many there are. More keeps more workers busy, fewer learns faster. None: 8, or a
            third of the samples that come after the random ones if that is less.
    """

    population_size: int | None = None
    sample_size: int | None = None
    mutation_prob: float = 0.2
    crossover: bool = False
    batch: int | None = None

    def __post_init__(self) -> None:
        _check("population_size", self.population_size, at_least=1)
        _check("sample_size", self.sample_size, at_least=1)
        _check("batch", self.batch, at_least=1)
        if not 0 < self.mutation_prob <= 1:
            raise ValueError(f"mutation_prob is {self.mutation_prob}: it is a probability above 0, up to 1")

    def resolved(self, samples: int) -> EvolutionConfig:
        population = _warm_up("population_size", self.population_size, samples)
        tournament = self.sample_size or min(population, max(2, population // 4))
        if tournament > population:
            raise ValueError(f"sample_size is {tournament}: at most the population, which is {population}")
        batch = _batch(self.batch, samples - population)
        return replace(self, population_size=population, sample_size=tournament, batch=batch)


@dataclass(frozen=True, kw_only=True)
class TpeConfig:
    """Bergstra et al., "Algorithms for hyper-parameter optimization", NeurIPS 2011.

    Attributes:
        n_startup_jobs: architectures drawn at random first. None: 16, or a third of the samples if that is
            less.
        n_ei_candidates: draws a choice, of which the one with the highest expected improvement is taken.
        gamma: of n architectures scored so far, the best gamma * sqrt(n) are the good ones (NNI: 0.25, which
            is 2 of 48).
        constant_liar_type: the score assumed for those of the same batch proposed before: the best, the mean
            or the worst so far (NNI: best).
        batch: architectures proposed and scored together, as in `evolution`.
    """

    n_startup_jobs: int | None = None
    n_ei_candidates: int = 24
    gamma: float = 0.5
    constant_liar_type: Literal["best", "mean", "worst"] = "mean"
    batch: int | None = None

    def __post_init__(self) -> None:
        _check("n_startup_jobs", self.n_startup_jobs, at_least=1)
        _check("n_ei_candidates", self.n_ei_candidates, at_least=1)
        _check("batch", self.batch, at_least=1)
        if not 0 < self.gamma <= 1000:
            raise ValueError(f"gamma is {self.gamma}: it is a number above 0, up to 1000")

    def resolved(self, samples: int) -> TpeConfig:
        least = min(samples, self._least_startup())
        if least == samples > 2:
            raise ValueError(
                f"gamma is {self.gamma}: with {samples} samples nothing is learnt, as all would count as "
                "good; lower gamma or raise the samples"
            )
        startup = max(least, _warm_up("n_startup_jobs", self.n_startup_jobs, samples))
        return replace(self, n_startup_jobs=startup, batch=_batch(self.batch, samples - startup))

    def _least_startup(self) -> int:
        """NNI's tuner crashes while all that it knows counts as good."""
        return next(n for n in range(1, _GOOD_AT_MOST + 2) if self._good(n) < n)

    def _good(self, scored: int) -> int:
        return min(math.ceil(self.gamma * math.sqrt(scored)), _GOOD_AT_MOST)


@dataclass(frozen=True, kw_only=True)
class HalvingConfig:
    """Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization",
    AISTATS 2016 (arXiv:1502.07943).

    All architectures, drawn as in `random`, train for a few epochs; the best by the search's score go on from
    where they stopped, until the last few have trained for all epochs. Each training is the beginning of the
    whole one: schedule and random numbers do not depend on where it is stopped.

    Attributes:
        eta: one in so many goes on from a rung to the next, with so many times the epochs; at least 2.
        rungs: how often architectures are compared, the last time after all epochs; at least 2.
    """

    eta: int = 3
    rungs: int = 3

    def __post_init__(self) -> None:
        _check("eta", self.eta, at_least=2)
        _check("rungs", self.rungs, at_least=2)

    def resolved(self, samples: int) -> HalvingConfig:  # noqa: ARG002
        return self

    def epochs(self, total: int) -> tuple[int, ...]:
        """The epochs done at each rung, `total` at the last; fewer rungs where there are too few epochs."""
        steps = [total]
        while len(steps) < self.rungs and steps[-1] > 1:
            steps.append(-(-total // self.eta ** len(steps)))
        return tuple(reversed(steps))

    def promoted(self, count: int) -> int:
        """How many of `count` go on."""
        return -(-count // self.eta)

    def brackets(self, count: int, rungs: int) -> tuple[int, ...]:
        """How many of `count` architectures begin at each rung: all at the first."""
        return (count, *[0] * (rungs - 1))


@dataclass(frozen=True, kw_only=True)
class HyperbandConfig(HalvingConfig):
    """Li et al., "Hyperband: a novel bandit-based approach to hyperparameter optimization", JMLR 2018
    (arXiv:1603.06560).

    Successive halving several times over, each time with fewer architectures that are first compared a rung
    later, the last time with a few that all train for all epochs: so that what learns slowly at first is not
    always lost. Halving compares those that began together only.
    """

    def brackets(self, count: int, rungs: int) -> tuple[int, ...]:
        """The same in the proportions of the paper, by which all brackets take about as long: at least one
        each, as far as `count` goes.

        With s rungs still to come there are eta^s / (s + 1) for every one that begins at the last.
        """
        wished = [self.eta**later / (later + 1) for later in reversed(range(rungs))]
        exact = [count * each / sum(wished) for each in wished]
        sizes = [max(1, int(each)) for each in exact]
        while sum(sizes) < count:
            neediest = max(range(rungs), key=lambda rung: exact[rung] - sizes[rung])
            sizes[neediest] += 1
        while sum(sizes) > count:
            fullest = max(range(rungs), key=lambda rung: (sizes[rung] - exact[rung], rung))
            sizes[fullest] -= 1
        return tuple(sizes)


@dataclass(frozen=True, kw_only=True)
class AshaConfig(HalvingConfig):
    """Asynchronous successive halving: Li et al., "A system for massively parallel hyperparameter tuning",
    MLSys 2020 (arXiv:1810.05934).

    An architecture goes on as soon as it is among the best so far, so that no worker waits for a rung to end.
    In the paper "so far" is what the workers happen to have done. Here trainings end in the order that they
    would if every epoch took equally long in so many slots, and none counts before its turn: a search gives
    the same scores whatever it runs on.

    Attributes:
        slots: architectures in training at once. It is not the number of workers: results are the same
            however many there are, but more workers than slots have nothing to do.
    """

    slots: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("slots", self.slots, at_least=1)


StrategyConfig = RandomConfig | GridConfig | EvolutionConfig | TpeConfig | HalvingConfig | HyperbandConfig

# Name -> options and summary.
STRATEGIES: dict[str, tuple[type[StrategyConfig], str]] = {
    "random": (RandomConfig, "uniformly at random, without repeats"),
    "grid": (GridConfig, "in the space's own order, the last choice varying fastest"),
    "evolution": (
        EvolutionConfig,
        "regularized (aging) evolution: the best of a few mutates, the oldest dies",
    ),
    "tpe": (
        TpeConfig,
        "tree-structured Parzen estimator: values more frequent among the good than the rest",
    ),
    "successive-halving": (
        HalvingConfig,
        "as random, but only the best of each rung of epochs train on: several times cheaper",
    ),
    "hyperband": (
        HyperbandConfig,
        "successive halving from several first rungs, so that slow beginners have a chance",
    ),
    "asha": (
        AshaConfig,
        "successive halving in which the best so far go on at once: for many workers",
    ),
}

STOPPING = tuple(name for name, (config, _) in STRATEGIES.items() if issubclass(config, HalvingConfig))
"""Those that stop most trainings early."""

LEARNING = ("evolution", "tpe")
"""Those whose proposals depend on the scores of earlier ones."""


def algorithm(name: str) -> str:
    """The NNI algorithm that proposes for a strategy, see `search_spaces._nni`."""
    return "random" if issubclass(STRATEGIES[name][0], HalvingConfig) else name


def configure(name: str, options: Mapping[str, Any], samples: int) -> StrategyConfig:
    """The strategy's configuration with every default resolved for this many samples.

    Args:
        name: a key of `STRATEGIES`.
        options: fields of its configuration; numbers may be given as text, as command lines do.
        samples: how many architectures will be proposed.
    Raises:
        ValueError: unknown strategy or option, a value of the wrong type or out of range, or one that leaves
            no sample to learn on.
    """
    config, _ = STRATEGIES[choose("strategy", name, STRATEGIES)]
    if samples < 1:
        raise ValueError(f"samples is {samples}: propose at least 1 architecture")
    types = get_type_hints(config)
    for option in options:
        choose(f"option of the strategy {name!r}", option, _option_names(config))
    return config(**{key: _typed(key, value, types[key]) for key, value in options.items()}).resolved(samples)


def run_strategy(
    name: str,
    space: Space,
    image_shape: ImageShape,
    *,
    samples: int,
    seed: int,
    evaluate: Callable[[Sequence[Architecture]], Sequence[float | None]],
    options: Mapping[str, Any] | None = None,
) -> None:
    """Propose different architectures that fit the images, and have them scored.

    Args:
        name: a key of `STRATEGIES`.
        image_shape: (C, H, W).
        samples: how many to propose; all that fit where there are fewer.
        seed: >= 0. The same seed and the same scores give the same proposals in the same order.
        evaluate: called with the next batch; gives each one's score, higher is better, or None if it failed,
            in the same order. What it raises passes through. A strategy that ignores scores asks once, for
            everything; the others in batches of their option `batch`. Successive halving asks as random
            search does: `atom_nas.halving` is what it evaluates with.
        options: see `configure`.
    Raises:
        ValueError: as `configure` does, a negative seed, or no architecture fits.
    """
    config = configure(name, options or {}, samples)
    settings = {} if isinstance(config, HalvingConfig) else asdict(config)
    if seed < 0:
        raise ValueError(f"seed is {seed}: give a whole number from 0")
    from search_spaces._nni import explore

    explore(
        space,
        image_shape,
        strategy=algorithm(name),
        samples=samples,
        seed=seed,
        batch=settings.pop("batch", None),
        options=settings,
        evaluate=evaluate,
    )


def _option_names(config: type[StrategyConfig]) -> tuple[str, ...]:
    return tuple(config.__dataclass_fields__)


def _typed(option: str, value: Any, wanted: Any) -> Any:
    # Imported late to keep `atom-nas --help` quick.
    from pydantic import TypeAdapter, ValidationError

    from atom_nas.config import first_wrong

    try:
        typed = TypeAdapter(wanted).validate_python(value)
    except ValidationError as error:
        raise ValueError(first_wrong(error, option)) from None
    if isinstance(value, bool) and not isinstance(typed, bool):
        raise ValueError(f"{option} must be a number, not {str(value).lower()}")  # which Python takes for one
    return typed


def _check(option: str, value: int | None, *, at_least: int) -> None:
    if value is not None and value < at_least:
        raise ValueError(f"{option} is {value}: at least {at_least}")


def _batch(given: int | None, learning: int) -> int:
    """As given, or a default that asks for scores at least three times while there is something to learn."""
    return given or max(1, min(8, learning // 3))


def _warm_up(option: str, given: int | None, samples: int) -> int:
    """How many architectures are drawn before any score counts: as given, or a default that leaves most."""
    if given is None:
        return max(1, min(16, samples // 3))
    if given >= samples:
        raise ValueError(
            f"{option} is {given}: with {samples} samples nothing is learnt; at most {samples - 1}"
        )
    return given

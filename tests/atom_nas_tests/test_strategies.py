"""Options of the strategies: defaults that fit the number of samples, and errors that help."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from atom_nas.strategies import STRATEGIES, EvolutionConfig, TpeConfig, algorithm, configure, run_strategy
from search_spaces import load


def test_every_strategy_has_an_algorithm() -> None:
    from search_spaces import _nni

    assert _nni._STRATEGIES.keys() == {algorithm(name) for name in STRATEGIES}


@pytest.mark.parametrize(
    ("samples", "population", "tournament"), [(1000, 16, 4), (48, 16, 4), (20, 6, 2), (6, 2, 2), (1, 1, 1)]
)
def test_evolutions_defaults_leave_most_samples_to_evolve(
    samples: int, population: int, tournament: int
) -> None:
    config = configure("evolution", {}, samples)
    assert isinstance(config, EvolutionConfig)
    assert (config.population_size, config.sample_size) == (population, tournament)


@pytest.mark.parametrize(("samples", "startup"), [(1000, 16), (48, 16), (12, 4), (1, 1)])
def test_tpes_default_leaves_most_samples_to_learn(samples: int, startup: int) -> None:
    config = configure("tpe", {}, samples)
    assert isinstance(config, TpeConfig)
    assert config.n_startup_jobs == startup


def test_options_may_be_text() -> None:
    config = configure("evolution", {"population_size": "9", "crossover": "true", "mutation_prob": "0.5"}, 48)
    assert config == EvolutionConfig(
        population_size=9, sample_size=2, mutation_prob=0.5, crossover=True, batch=8
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("evolutoin", {}, "unknown strategy 'evolutoin': did you mean 'evolution'"),
        (
            "evolution",
            {"population": 4},
            "'evolution' 'population': did you mean 'population_size'.* allowed: ",
        ),
        ("random", {"batch": 4}, "unknown option of the strategy 'random' 'batch'"),
        (
            "evolution",
            {"population_size": "many"},
            "^population_size must be a whole number, not 'many'$",
        ),
        ("evolution", {"population_size": 48}, "population_size is 48: with 48 samples .* at most 47"),
        ("evolution", {"population_size": 0}, "population_size is 0: at least 1"),
        ("evolution", {"population_size": 4, "sample_size": 5}, "sample_size is 5: at most the population"),
        ("evolution", {"sample_size": 0}, "sample_size is 0: at least 1"),
        ("evolution", {"mutation_prob": 0}, "mutation_prob is 0.0: "),
        ("evolution", {"mutation_prob": 1.5}, "mutation_prob is 1.5: "),
        ("evolution", {"batch": 0}, "batch is 0: at least 1"),
        ("tpe", {"n_startup_jobs": 48}, "n_startup_jobs is 48: with 48 samples"),
        ("tpe", {"n_ei_candidates": 0}, "n_ei_candidates is 0: at least 1"),
        ("tpe", {"gamma": -1}, "gamma is -1.0"),
        ("tpe", {"gamma": "nan"}, "gamma is nan"),
        ("tpe", {"gamma": 1e308}, "gamma is 1e[+]308"),
        ("tpe", {"constant_liar_type": "good"}, "constant_liar_type must be 'best', .* not 'good'$"),
        ("tpe", {"batch": 2.5}, r"batch must be a whole number, not 2\.5$"),
        ("tpe", {"batch": True}, "batch must be a number, not true$"),
    ],
)
def test_wrong_options_get_one_helpful_line(name: str, options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        configure(name, options, 48)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"n_startup_jobs": 1}, {"n_startup_jobs": 2, "gamma": 1000.0}])
def test_tpe_learns_only_once_something_is_not_among_the_best(options: dict[str, Any]) -> None:
    """NNI's tuner crashes on a history in which all count as good."""
    proposed: list[str] = []

    def evaluate(batch: Sequence[Any]) -> list[float]:
        proposed.extend(map(str, batch))
        return [float(len(str(each))) for each in batch]

    space = load("convnet")
    run_strategy("tpe", space, (1, 8, 8), samples=40, seed=0, evaluate=evaluate, options=options)
    assert len(set(proposed)) == 40


def test_a_gamma_that_leaves_nothing_to_learn_is_refused() -> None:
    with pytest.raises(ValueError, match="all would count as good; lower gamma"):
        configure("tpe", {"gamma": 5}, 10)


@pytest.mark.parametrize(
    ("samples", "seed", "message"), [(0, 0, "samples is 0"), (-1, 0, "samples is -1"), (1, -1, "seed is -1")]
)
def test_wrong_samples_and_seed(samples: int, seed: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_strategy("random", load("convnet"), (1, 8, 8), samples=samples, seed=seed, evaluate=lambda _: [])


def test_large_seeds_are_welcome() -> None:
    seen: list[str] = []

    def evaluate(batch: Any) -> list[float]:
        seen.extend(map(str, batch))
        return [0.0] * len(batch)

    for seed in (2**63 - 1, 2**32, 0):
        run_strategy("random", load("convnet"), (1, 8, 8), samples=2, seed=seed, evaluate=evaluate)
    assert len({tuple(seen[:2]), tuple(seen[2:4]), tuple(seen[4:])}) == 3


def test_importing_imports_neither_torch_nor_nni() -> None:
    program = (
        "import sys, atom_nas.strategies; sys.exit(bool({'torch', 'nni', 'pydantic'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

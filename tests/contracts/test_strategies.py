"""What every registered strategy promises; those that learn must beat random search on an easy objective."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from atom_nas.strategies import STRATEGIES, run_strategy
from search_spaces import load
from search_spaces.base import Space, count_fitting, enumerate_space

SHAPE = (1, 8, 8)
SPACE = load("convnet")
EVERYONE = list(enumerate_space(SPACE))
LEARNING = ["evolution", "tpe"]
SEEDS = range(6)

Score = Callable[[Any], float | None]


def additive(architecture: Any) -> float:
    """An easy objective in [0, 5]: each choice adds its place among its values."""
    sample = SPACE.sample_of(architecture)
    return sum(values.index(sample[choice]) / (len(values) - 1) for choice, values in SPACE.choices.items())


def proposals(
    name: str,
    *,
    samples: int = 48,
    seed: int = 0,
    score: Score = additive,
    space: Space = SPACE,
    **options: Any,
) -> list[list[Any]]:
    """The batches a strategy proposes."""
    batches: list[list[Any]] = []

    def evaluate(batch: Any) -> list[float | None]:
        batches.append(list(batch))
        return [score(architecture) for architecture in batch]

    run_strategy(name, space, SHAPE, samples=samples, seed=seed, evaluate=evaluate, options=options)
    return batches


def flat(batches: list[list[Any]]) -> list[Any]:
    return [architecture for batch in batches for architecture in batch]


@pytest.fixture(params=sorted(STRATEGIES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("samples", [1, 7, 48, 200])
def test_proposes_so_many_different_architectures_that_fit(name: str, samples: int) -> None:
    proposed = flat(proposals(name, samples=samples))
    assert len(proposed) == len(set(proposed)) == samples
    assert all(SPACE.misfit(architecture, SHAPE) is None for architecture in proposed)


def test_same_seed_same_proposals(name: str) -> None:
    assert proposals(name, seed=3) == proposals(name, seed=3)


def test_other_seed_other_proposals(name: str) -> None:
    assert (flat(proposals(name, seed=3)) == flat(proposals(name, seed=4))) == (name == "grid")


def test_a_shorter_run_is_the_beginning_of_a_longer_one_without_feedback() -> None:
    for blind in ("random", "grid"):
        assert flat(proposals(blind, samples=10)) == flat(proposals(blind, samples=30))[:10]


def test_the_batch_depends_on_nothing_but_its_option_and_the_samples(name: str) -> None:
    """Few samples come in smaller batches: in one of 8 a strategy would learn nothing from 8 samples."""
    for samples, wanted in ((60, [8] * 7 + [4]), (20, [4] * 5), (8, [2] * 4), (2, [1, 1])):
        sizes = [len(batch) for batch in proposals(name, samples=samples)]
        assert sizes == (wanted if name in LEARNING else [samples])
    if name in LEARNING:
        assert [len(batch) for batch in proposals(name, samples=20, batch=3)] == [3] * 6 + [2]


def test_all_fitting_architectures_are_found_and_then_it_ends(name: str) -> None:
    small = load("convnet", width=[64, 32], norm=["none"], activation=["relu"])
    fitting, size = count_fitting(small, SHAPE)
    assert (fitting, size) == (20, 24)
    assert len(set(flat(proposals(name, samples=20, space=small)))) == 20
    proposed = flat(proposals(name, samples=1000, space=small))
    assert len(proposed) == len(set(proposed)) == 20


def test_grid_follows_the_spaces_order() -> None:
    in_order = [architecture for architecture in EVERYONE if SPACE.misfit(architecture, SHAPE) is None]
    assert flat(proposals("grid", samples=1000)) == in_order


def test_failures_are_survived(name: str) -> None:
    failing: list[Score] = [
        lambda _: None,
        lambda architecture: None if architecture.norm == "none" else additive(architecture),
    ]
    for score in failing:
        assert len(set(flat(proposals(name, score=score)))) == 48


@pytest.mark.parametrize("learning", LEARNING)
def test_scores_matter_only_to_those_that_learn(learning: str) -> None:
    upward = flat(proposals(learning))
    downward = flat(proposals(learning, score=lambda architecture: -additive(architecture)))
    assert upward[:8] == downward[:8]
    assert upward != downward
    assert statistics.mean(map(additive, upward[24:])) > statistics.mean(map(additive, downward[24:])) + 1
    for blind in ("random", "grid"):
        assert proposals(blind) == proposals(blind, score=lambda architecture: -additive(architecture))


@cache
def over_seeds(name: str) -> list[list[float]]:
    """What each proposal of a run is worth, for several seeds."""
    return [[additive(architecture) for architecture in flat(proposals(name, seed=seed))] for seed in SEEDS]


@pytest.mark.parametrize("learning", LEARNING)
def test_learning_beats_random_search(learning: str) -> None:
    """The later half of a run is better on average by far, and so is the best one found."""

    def later(name: str) -> float:
        return statistics.mean(worth for run in over_seeds(name) for worth in run[24:])

    def best(name: str) -> float:
        return statistics.mean(max(run) for run in over_seeds(name))

    assert later(learning) > later("random") + 0.4
    assert best(learning) > best("random")

"""Herding and k-center against exhaustive search and their definitions."""

import itertools

import pytest
import torch

from distill.methods.herding import herd
from distill.methods.kcenter import greedy_centers
from distill.seeding import stream


def points(count: int = 12, dimensions: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dimensions, generator=stream(seed, "points"), dtype=torch.float64)


@pytest.mark.parametrize("seed", range(5))
def test_each_herded_row_is_the_best_next_one(seed):
    features = points(seed=seed)
    chosen = herd(features, 6).tolist()
    assert len(set(chosen)) == 6
    for size in range(1, 7):

        def distance(row, size=size):
            return float((features.mean(0) - features[[*chosen[: size - 1], row]].mean(0)).norm())

        free = [row for row in range(len(features)) if row not in chosen[: size - 1]]
        assert chosen[size - 1] == min(free, key=distance)


def test_herding_all_takes_each_once():
    assert sorted(herd(points(5), 5).tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(5))
def test_centers_cover_within_twice_the_optimum(seed):
    features = points(10, seed=seed)

    def radius(rows):
        return float(torch.cdist(features, features[list(rows)]).min(dim=1).values.max())

    best = min(radius(rows) for rows in itertools.combinations(range(10), 3))
    chosen = greedy_centers(features, 3).tolist()
    assert len(set(chosen)) == 3
    assert radius(chosen) <= 2 * best + 1e-9


def test_centers_of_identical_rows_are_distinct():
    assert sorted(greedy_centers(torch.zeros(4, 2), 4).tolist()) == [0, 1, 2, 3]

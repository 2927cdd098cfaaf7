"""Herding and k-center against exhaustive search and their definitions."""

import itertools
from functools import partial

import pytest
import torch
from distill_helpers import problem

from distill.formation import encode
from distill.methods import load
from distill.methods._features import FeatureConfig, embed, greedy_centers, herd
from distill.methods._pixels import initial_state
from distill.seeding import stream
from distill.session import Interrupted, RecordedSession, Session
from distill.training import TrainingConfig


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


@pytest.mark.parametrize("method", ["herding", "kcenter"])
def test_pixels_may_start_from_a_coreset(method):
    module, posed = load(method), problem()
    chosen = module.distill(posed, module.Config(), Session())
    start = initial_state(posed, method)
    assert torch.equal(start.images, chosen)
    assert not torch.equal(start.images, initial_state(posed, "real").images)
    assert start.iteration == 0
    assert not start.momentum.any()


def test_features_that_diverge_are_one_line_with_advice(monkeypatch):
    wild = partial(TrainingConfig, learning_rate=1e20)
    monkeypatch.setattr("distill.methods._features.TrainingConfig", wild)
    with pytest.raises(
        ValueError, match=r"loss is nan in epoch \d of the network .* feature_epochs=0 leaves it"
    ):
        embed(problem(), FeatureConfig(feature_epochs=9), Session())


def test_a_coreset_may_be_shrunk_and_goes_round_where_a_class_has_too_few():
    posed = problem((12, 8, 5))
    start = initial_state(posed, "herding", 2)
    features = embed(posed, FeatureConfig(), Session())
    picked = [pool[herd(rows, min(8, len(pool)))] for pool, rows in zip(posed.pools(), features, strict=True)]
    assert [len(row.unique()) for row in picked] == [8, 8, 5]
    picked[2] = torch.cat([picked[2], picked[2][:3]])
    assert torch.equal(start.images, encode(posed.prepare(torch.cat(picked)), 2))


@pytest.mark.parametrize("start", ["herding", "kcenter"])
def test_shards_that_start_from_a_coreset_are_the_whole(start):
    posed, dm = problem((12, 7, 12, 4)), load("dm")
    config = dm.Config(iterations=3, width=8, batch_real=5, initialization=start)
    assert config.uses_all_classes
    assert not dm.Config().uses_all_classes
    whole = dm.distill(posed, config, Session()).unflatten(0, (4, 2))
    for subset in [(1, 3), (0, 2)]:
        part = dm.distill(posed.narrowed(subset, keep_others=True), config, Session())
        assert torch.allclose(part.unflatten(0, (2, 2)), whole[list(subset)], atol=1e-4)


@pytest.mark.parametrize("stops", [False, True])
def test_the_training_that_chooses_is_told_of_and_can_be_stopped(tmp_path, stops):
    told, posed, dm = [], problem(), load("dm")
    session = RecordedSession(
        tmp_path, {}, resume=False, on_stage=told.append, should_stop=lambda: stops and len(told) == 2
    )
    config = dm.Config(iterations=1, width=8, batch_real=5, initialization="herding")
    if stops:
        with pytest.raises(Interrupted):
            dm.distill(posed, config, session)
    else:
        dm.distill(posed, config, session)
    assert [text.rpartition(": ")[2] for text in told] == [f"{n} of 5" for n in range(1, 3 if stops else 6)]


def test_an_unknown_start_is_refused():
    with pytest.raises(ValueError, match="initialization must be one of real, herding, kcenter, noise"):
        load("atom").Config(initialization="zeros")

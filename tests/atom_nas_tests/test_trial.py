"""One trial as a worker runs it, here in the test's own process."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from trial_helpers import SHAPE, CountingEstimator, build, search_data, small_network

from atom_nas.engines._trial import run_trial
from atom_nas.engines.base import Outcome
from atom_nas.estimators.base import Estimator
from atom_nas.estimators.measure import network_costs
from atom_nas.estimators.proxy import ProxyConfig, ProxyEstimator
from atom_nas.workload import TrialJob, Workload
from distill import graphs
from distill.training import TrainingConfig

CPU = torch.device("cpu")


def run(name: str, estimator: Estimator, seed: int = 0, **how: Any) -> tuple[Outcome[TrialJob], bool, bool]:
    workload = Workload(build=build, estimators=(estimator,), image_shape=SHAPE)
    return run_trial(TrialJob(estimator=estimator.name, architecture=name, seed=seed), workload, CPU, **how)


def test_what_a_trial_costs_is_measured() -> None:
    estimator = ProxyEstimator(search_data(), ProxyConfig(training=TrainingConfig(epochs=3)))
    outcome, spoiled, _ = run("fine", estimator)
    assert (outcome.reason, spoiled) == (None, False)
    assert 0 < outcome.seconds < 60
    assert 0 < outcome.cpu_seconds < 60
    assert outcome.peak_memory_mb is not None
    assert 0 < outcome.peak_memory_mb < 1000
    assert outcome.device == "cpu"


class HungryEstimator(CountingEstimator):
    """Uses 200 MiB for a moment."""

    def score(
        self, network: nn.Module, *, seed: int, device: torch.device, leg: Any = None
    ) -> dict[str, float]:
        assert torch.ones(200 * 2**18).all()
        return super().score(network, seed=seed, device=device)


def test_the_peak_is_of_the_trial_alone() -> None:
    ballast = torch.ones(300 * 2**18)
    modest = run("fine", CountingEstimator())[0].peak_memory_mb
    hungry = run("fine", HungryEstimator())[0].peak_memory_mb
    again = run("fine", CountingEstimator())[0].peak_memory_mb
    assert len(ballast)
    assert modest is not None
    assert hungry is not None
    assert again is not None
    assert modest < 100
    assert 190 < hungry < 300
    assert again < 100


def test_memory_that_cannot_be_measured_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("pathlib.Path.write_text", refuse)
    assert run("fine", CountingEstimator())[0].peak_memory_mb is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_not_finite_fails_the_trial(bad: float) -> None:
    outcome, spoiled, _ = run("fine", CountingEstimator(bad))
    assert outcome.reason == f"FloatingPointError: validation_loss is {bad}"
    assert (outcome.scores, spoiled) == ({}, False)


def test_the_seed_decides_and_the_global_generator_is_left_alone() -> None:
    state = torch.random.get_rng_state()
    first, again, other = (run("fine", CountingEstimator(), seed)[0].scores["weights"] for seed in (5, 5, 6))
    assert first == again != other
    assert torch.equal(torch.random.get_rng_state(), state)


def test_exhausted_memory_spoils_the_process_and_an_ordinary_error_does_not() -> None:
    endings = {name: run(name, CountingEstimator())[1:] for name in ("memory", "raises", "fine")}
    assert endings == {"memory": (True, True), "raises": (False, False), "fine": (False, False)}


def test_costs_are_those_counted_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 3))
    state = {name: value.clone() for name, value in network.state_dict().items()}
    costs = network_costs(network, SHAPE)
    assert costs["parameters"] == (4 * 9 + 4) + 8 + (144 * 3 + 3)
    assert costs["flops"] == 2 * (36 * 4 * 9) + 2 * (144 * 3)
    assert network.training
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_frozen_weights_are_no_parameters() -> None:
    network = small_network()
    network.requires_grad_(False)
    assert network_costs(network, SHAPE)["parameters"] == 0


class Unspeakable(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("error", [KeyboardInterrupt("mine"), SystemExit("enough"), Unspeakable()], ids=repr)
def test_whatever_a_network_raises_is_a_reason(error: BaseException) -> None:
    class Raising(CountingEstimator):
        def score(self, *_: Any, **__: Any) -> dict[str, float]:
            raise error

    outcome, spoiled, starved = run("fine", Raising(), caught=BaseException)
    assert (outcome.reason or "").startswith(type(error).__name__)
    assert (spoiled, starved) == (False, False)


@pytest.mark.parametrize(
    ("error", "starved"),
    [
        (torch.OutOfMemoryError("CUDA"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
    ids=str,
)
def test_want_of_memory_is_told_from_other_failures(error: Exception, starved: bool) -> None:
    class Raising(CountingEstimator):
        def score(self, *_: Any, **__: Any) -> dict[str, float]:
            raise error

    assert run("fine", Raising())[2] is starved


def test_a_process_in_which_a_recording_failed_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others that it trained would not be recorded: what scores they get would depend on who trains them."""
    for failed in (False, True):
        monkeypatch.setattr(graphs, "_failed", failed)
        outcome, spoiled, _ = run("fine", CountingEstimator())
        assert (outcome.reason, spoiled) == (None, failed)

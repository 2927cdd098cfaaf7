"""CUDA graphs: where they are used, and that they change nothing but the time."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from distill import graphs, training
from distill.graphs import FEWEST_STEPS, graphed
from distill.precision import PRECISIONS, Precision
from distill.training import TrainingConfig, train

ON_A_GPU: Any = SimpleNamespace(device=torch.device("cuda"))
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 64, 4)
    )


def test_no_graphs_without_a_gpu_or_for_a_few_steps() -> None:
    plain = network()
    assert graphed(plain, torch.zeros(2, 3, 8, 8), "float32", 10**6) is plain
    assert graphed(plain, ON_A_GPU, "float32", FEWEST_STEPS - 1) is plain


def test_what_cannot_be_recorded_runs_eagerly_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore lines")

    monkeypatch.setattr(graphs, "Graphed", fails)
    plain = network()
    with pytest.warns(
        UserWarning, match=r"without CUDA graphs: operation not permitted when stream is capturing$"
    ):
        assert graphed(plain, ON_A_GPU, "float32", FEWEST_STEPS) is plain


def test_training_asks_for_graphs_of_its_own_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def note(network: nn.Module, example: torch.Tensor, precision: Precision, steps: int) -> nn.Module:
        asked.append((tuple(example.shape), example.is_contiguous(memory_format=torch.channels_last), steps))
        return network

    monkeypatch.setattr(training, "graphed", note)
    images, labels = torch.randn(10, 3, 8, 8), torch.arange(10) % 4
    for batch_size in (4, 50):
        config = TrainingConfig(epochs=2, batch_size=batch_size)
        train(network(), images, labels, config=config, seed=0, device=torch.device("cpu"))
    assert asked == [((4, 3, 8, 8), True, 6), ((10, 3, 8, 8), True, 2)]


@needs_gpu
@pytest.mark.parametrize("precision", PRECISIONS)
def test_replayed_training_is_eager_training(precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    images, labels = torch.randn(50, 3, 8, 8), torch.arange(50) % 4
    config = TrainingConfig(epochs=FEWEST_STEPS, batch_size=16, precision=precision)
    ended = []
    for fewest in (FEWEST_STEPS, 10**9):
        monkeypatch.setattr(graphs, "FEWEST_STEPS", fewest)
        model = network()
        record = train(model, images, labels, config=config, seed=0, device=torch.device("cuda"))
        ended.append((record.epoch_losses, model.state_dict()))
    assert ended[0][0] == ended[1][0]
    assert all(torch.equal(ended[0][1][name], value) for name, value in ended[1][1].items())

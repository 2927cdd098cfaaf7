"""Recorded training steps: where they are used, and that they change nothing but the time."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from distill import graphs, training
from distill.graphs import FEWEST_STEPS, Material, RecordedSteps, recorded
from distill.leg import Leg, keep, take_up
from distill.precision import PRECISIONS, Precision
from distill.preprocessing import fit_preprocessing
from distill.training import TrainingConfig, TrainingRecord, train
from search_spaces.nasbench201 import Cell, CellSpace

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


class Idle(nn.Linear):
    """A layer whose weights are not used."""

    cuda_graphs = True

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return input


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), Idle(3, 3)]
    return nn.Sequential(*layers, nn.Linear(16 * 64, 4))


class Unrecorded(RecordedSteps):
    """The steps that would be recorded, run as they are: what a CPU can do."""

    def _record(self, size: int) -> Callable[[Tensor, Tensor], None]:
        return self._step


def as_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "recorded", lambda material, _: Unrecorded(material))


def trained(
    config: TrainingConfig, device: torch.device = CPU, *, pixels: bool = False, **parts: Any
) -> tuple[TrainingRecord, dict[str, Tensor]]:
    """A training on 50 images, float in model space or uint8."""
    model, labels = network(), torch.arange(50) % 4
    generator = torch.Generator().manual_seed(1)
    if pixels:
        images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8, generator=generator)
        parts["preprocessing"] = fit_preprocessing(images, zca=False)
    else:
        images = torch.randn(50, 3, 8, 8, generator=generator)
    record = train(model, images, labels, config=config, seed=0, device=device, **parts)
    return record, {name: value.cpu() for name, value in model.state_dict().items()}


def assert_alike(
    one: tuple[TrainingRecord, dict[str, Tensor]],
    other: tuple[TrainingRecord, dict[str, Tensor]],
    tolerance: float,
) -> None:
    losses = [torch.tensor(record.epoch_losses) for record, _ in (one, other)]
    torch.testing.assert_close(losses[1], losses[0], rtol=tolerance, atol=tolerance)
    for name, value in one[1].items():
        torch.testing.assert_close(other[1][name], value, rtol=tolerance, atol=tolerance)


class OnGPU:
    """As much of a `Material` as is looked at before anything is recorded, on a GPU."""

    images = SimpleNamespace(device=torch.device("cuda"))

    def __init__(self, network: nn.Module) -> None:
        self.network = network


def test_no_graphs_without_a_gpu_or_for_a_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    material = Material(network(), torch.zeros(2, 3, 8, 8), torch.zeros(2).long(), None, TrainingConfig(), ())
    assert recorded(material, 10**6) is None
    monkeypatch.setattr(graphs, "RecordedSteps", lambda given: ("recorded", given))
    on_gpu: Any = OnGPU(network())
    assert recorded(on_gpu, FEWEST_STEPS - 1) is None
    assert recorded(on_gpu, FEWEST_STEPS) == ("recorded", on_gpu)


def test_what_cannot_be_recorded_runs_eagerly_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Material) -> None:
        raise graphs.UnrecordableError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graphs, "RecordedSteps", fails)
    on_gpu: Any = OnGPU(network())
    with pytest.warns(
        UserWarning, match=r"without CUDA graphs: operation not permitted when stream is capturing$"
    ):
        assert recorded(on_gpu, FEWEST_STEPS) is None


def test_code_that_may_decide_in_python_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sometimes(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            return input if random.random() < 0.5 else super().forward(input)

    monkeypatch.setattr(graphs, "RecordedSteps", lambda given: given)
    own: Any = OnGPU(nn.Sequential(nn.Flatten(), Sometimes(3, 3)))
    with pytest.warns(UserWarning, match="what Sometimes decides in Python.* says cuda_graphs = True"):
        assert recorded(own, FEWEST_STEPS) is None
    cell: Any = OnGPU(CellSpace(cells=1, channels=4).build(Cell(("nor_conv_1x1",) * 6), (3, 8, 8), 10))
    for known in (cell, OnGPU(torchvision.models.resnet18())):
        assert recorded(known, FEWEST_STEPS) is known


@pytest.mark.parametrize("batch_size", [16, 25, 64])
@pytest.mark.parametrize("schedule", ["step", "cosine", "onecycle", "constant"])
def test_steps_of_fixed_shape_train_as_the_eager_ones(
    batch_size: int, schedule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainingConfig(epochs=6, batch_size=batch_size, schedule=schedule)
    eager = trained(config)
    as_recorded(monkeypatch)
    assert_alike(eager, trained(config), 1e-4)


@pytest.mark.parametrize("settings", [{"augmentation": "none"}, {"momentum": 0.0}, {"weight_decay": 0.1}])
@pytest.mark.parametrize("pixels", [True, False])
def test_and_so_they_do_with_other_settings_and_with_pixels(
    settings: Any, pixels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainingConfig(epochs=4, batch_size=20, **settings)
    eager = trained(config, pixels=pixels)
    as_recorded(monkeypatch)
    assert_alike(eager, trained(config, pixels=pixels), 1e-4)


@pytest.mark.parametrize("by_graphs", [False, True])
def test_a_training_in_parts_is_the_whole_training(by_graphs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a layer that gets no gradient, as cells have off their path."""
    if by_graphs:
        as_recorded(monkeypatch)
    config = TrainingConfig(epochs=5, batch_size=20)
    whole = trained(config)
    model, images = network(), torch.randn(50, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    first = train(model, images, torch.arange(50) % 4, config=config, seed=0, device=CPU, until=2)
    record = train(model, images, torch.arange(50) % 4, config=config, seed=0, device=CPU, after=first)
    assert record.epoch_losses == whole[0].epoch_losses
    assert all(torch.equal(whole[1][name], value) for name, value in model.state_dict().items())


def test_recorded_steps_go_on_with_frozen_layers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A checkpoint has a momentum for every parameter, whichever way the training went."""
    images, labels = (
        torch.randn(50, 3, 8, 8, generator=torch.Generator().manual_seed(1)),
        torch.arange(50) % 4,
    )
    config, leg = TrainingConfig(epochs=4, batch_size=20), Leg(until=4, checkpoint=tmp_path / "leg")

    def frozen() -> nn.Module:
        model = network()
        model[0].requires_grad_(False)
        return model

    def part(model: nn.Module, **how: Any) -> TrainingRecord:
        return train(model, images, labels, config=config, seed=0, device=CPU, **how)

    whole = part(frozen())
    as_recorded(monkeypatch)
    first = frozen()
    record = part(first, until=2)
    keep(leg, first, record)
    second = frozen()
    taken = take_up(leg, second)
    assert taken is not None
    assert len(taken.momentum) == len(list(second.parameters()))
    assert part(second, after=taken).epoch_losses == pytest.approx(whole.epoch_losses, rel=1e-4)
    assert torch.equal(second[0].weight, network()[0].weight)


class Stream:
    """As much of a stream as is used to record."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wait_stream(self, _: Any) -> None:
        pass


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Stream]]:
    """Stand-ins for what is used of torch.cuda to record, and a module that has recorded nothing; gives the
    streams that are made current."""
    current: list[Stream] = []
    for name, fake in {
        "get_rng_state": lambda _: None,
        "set_rng_state": lambda *_: None,
        "CUDAGraph": object,
        "Stream": Stream,
        "current_stream": Stream,
        "stream": lambda _: nullcontext(),
        "device": lambda _: nullcontext(),
        "graph": lambda *_, **__: nullcontext(),
        "set_stream": current.append,
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(graphs, "_failed", False)
    graphs._side.cache_clear()
    yield current
    graphs._side.cache_clear()


def test_what_is_recorded_is_what_runs_on_the_networks_own_gpu(
    without_gpu: list[Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch would capture a stream of the current device, whatever device the step works on."""
    device, current = torch.device("cuda:1"), [torch.device("cuda:0")]
    captured: list[tuple[Any, torch.device]] = []

    @contextmanager
    def on(of: torch.device) -> Iterator[None]:
        current.append(of)
        yield
        current.pop()

    @contextmanager
    def capture(_: Any, *, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        captured.append((stream.device, current[-1]))
        assert capture_error_mode == "thread_local"
        yield

    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    changed = torch.zeros(2)

    def step() -> None:
        changed.add_(1)

    for _ in range(2):
        graphs.record(step, [changed], device, "training")
    assert captured == [(device, device)] * 2
    assert changed.tolist() == [0, 0]
    assert [each.device for each in without_gpu] == [device] * 2
    assert graphs._side.cache_info().misses == 1  # cuBLAS would keep memory for every stream it has seen


@pytest.mark.usefixtures("without_gpu")
def test_a_recording_that_fails_is_the_processs_last(monkeypatch: pytest.MonkeyPatch) -> None:
    words, tries = "operation not permitted\nwhen stream is capturing", 0

    def record(_: Any = None) -> None:
        nonlocal tries
        tries += 1
        graphs.record(lambda: None, [], torch.device("cuda"), "training")

    @contextmanager
    def capture(*_: Any, **__: Any) -> Iterator[None]:
        yield
        raise RuntimeError(words)

    record()
    assert not graphs.broken()
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(graphs, "RecordedSteps", record)
    known: Any = OnGPU(nn.Linear(3, 3))
    with pytest.warns(UserWarning, match="training without CUDA graphs: operation not permitted$"):
        assert recorded(known, FEWEST_STEPS) is None
    assert graphs.broken()
    assert recorded(known, FEWEST_STEPS) is None
    assert tries == 2
    words = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED"
    with pytest.raises(RuntimeError, match="ALLOC_FAILED"):
        record()


def test_losses_that_are_read_late_name_the_epoch_that_was_not_finite() -> None:
    images = torch.randn(50, 3, 8, 8)
    images[7] = float("nan")
    with pytest.raises(FloatingPointError, match=r"in epoch 1$"):
        train(network(), images, torch.arange(50) % 4, config=TrainingConfig(epochs=9), seed=0, device=CPU)


@needs_gpu
@pytest.mark.parametrize("precision", PRECISIONS)
def test_replayed_training_is_eager_training(precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainingConfig(epochs=FEWEST_STEPS, batch_size=16, precision=precision)
    device = torch.device("cuda")
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        replayed = trained(config, device)
        monkeypatch.setattr(graphs, "FEWEST_STEPS", 10**9)
        eager = trained(config, device)
    assert_alike(eager, replayed, 1e-3 if precision == "float32" else 5e-2)


@needs_gpu
def test_replaying_repeats_its_bits() -> None:
    config = TrainingConfig(epochs=FEWEST_STEPS, batch_size=16)
    with torch.backends.cudnn.flags(enabled=True, deterministic=True):
        one, other = (trained(config, torch.device("cuda"), pixels=True) for _ in range(2))
    assert one[0].epoch_losses == other[0].epoch_losses

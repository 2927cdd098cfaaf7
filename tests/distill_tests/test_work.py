"""Counts that speed rests on: what a step does must not grow unnoticed. Nothing here measures time."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from distill_helpers import problem
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from distill import kernels
from distill.methods import _matching, _pixels, atom, dc
from distill.networks import ConvNet, convnet
from distill.seeding import stream
from distill.session import Session
from distill.training import TrainingConfig, train

CPU = torch.device("cpu")
fused = pytest.mark.skipif(kernels.why_unavailable() is not None, reason="no C++ compiler")


class Operations(TorchDispatchMode):
    """Counts torch's operations, and remembers the largest float tensor that any of them made."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.counts[func.overloadpacket.__name__] += 1
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                self.largest = max(self.largest, tensor.numel())
        return out


class Calls:
    """The kernels, counting how often each is called."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._library = kernels.library()

    def __getattr__(self, name: str) -> Any:
        self.counts[name] += 1
        return getattr(self._library, name)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    counted = Calls()
    for module in ("distill.kernels", "distill.fusion"):
        monkeypatch.setattr(f"{module}.library", lambda: counted)
    return counted


def distill(iterations: int, counts: tuple[int, ...] = (24, 24), **config: Any) -> None:
    settings = atom.Config(iterations=iterations, width=32, depth=2, batch_real=8, **config)
    atom.distill(problem(counts, ipc=2, side=16), settings, Session())


def distilled(*given: Any, **config: Any) -> Operations:
    with Operations() as operations:
        distill(*given, **config)
    return operations


def per_iteration(*given: Any, **config: Any) -> int:
    """Operations of one iteration more."""
    fewer, more = (sum(distilled(n, *given, **config).counts.values()) for n in (3, 5))
    assert (more - fewer) % 2 == 0
    return (more - fewer) // 2


@fused
def test_an_iteration_runs_each_layer_once_for_all_real_images_and_once_for_all_synthetic(
    calls: Calls,
) -> None:
    counted = []
    for iterations in (2, 3):
        calls.counts.clear()
        distill(iterations)
        counted.append(Counter(calls.counts))
    assert counted[1] - counted[0] == {
        "patches_forward": 2,
        "patches_backward": 1,
        "winograd_filters": 3,
        "winograd_forward": 3,  # one of them carries the gradient back
        "attention_forward": 4,
        "attention_backward": 2,
    }


@fused
def test_an_iterations_operations_do_not_grow_with_images_or_iterations() -> None:
    one = per_iteration(augmentation="none")
    assert one <= 300
    assert per_iteration((96, 96), augmentation="none") == one
    # A class more costs its random draws, not passes of its own.
    assert per_iteration((24, 24, 24), augmentation="none") - one <= 10


@fused
def test_real_gradients_and_the_networks_training_run_on_the_kernels(calls: Calls) -> None:
    counted = []
    for iterations, steps in ((1, 1), (2, 1), (1, 2)):
        calls.counts.clear()
        loops = {"iterations": iterations, "pixel_steps": steps, "network_epochs": 4}
        config = dc.Config(width=32, depth=2, batch_real=8, **loops)
        dc.distill(problem((24, 24), ipc=2, side=16), config, Session())
        counted.append(Counter(calls.counts))
    one, two, trained = counted
    once = {name: one[name] for name in ("patches_forward", "patches_gradient", "winograd_gradient")}
    assert once == dict.fromkeys(once, 2)  # one a class
    assert one["own_backward"] == 4
    assert two == one + one
    assert (trained - one - one)["patches_gradient"] == 4  # one an epoch, all classes together
    assert one["patches_backward"] == 0  # the pictures' gradient is not the kernels' business


def test_the_network_is_drawn_afresh_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    built, places = [], set()

    def build(*given: Any, **named: Any) -> ConvNet:
        built.append(convnet(*given, **named))
        return built[-1]

    def note(network: ConvNet, generator: torch.Generator) -> None:
        reinitialise(network, generator)
        places.add(tuple(parameter.data_ptr() for parameter in network.parameters()))

    reinitialise = _matching.reinitialise
    monkeypatch.setattr(_pixels, "convnet", build)
    monkeypatch.setattr(_matching, "reinitialise", note)
    distill(4)
    assert len(built) == len(places) == 1


def test_real_images_are_floats_a_batch_at_a_time() -> None:
    """No float tensor is as large as a quarter of the real set, whatever the network makes of a batch."""
    counts = (2000, 2000)
    posed = problem(counts, ipc=2, side=16)
    with Operations() as operations:
        config = atom.Config(iterations=2, width=16, depth=2, batch_real=4)
        atom.distill(posed, config, Session())
    assert operations.largest < posed.real.images.numel() / 4


def test_a_compiled_distillation_is_one_graph_a_shape_and_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler, compile_ = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **kw: compile_(function, backend=compiler, **kw))
    monkeypatch.setattr(_matching, "decide", lambda *_: (True, "asked for"))
    counters.clear()
    distill(6, compile=True)  # not counted: while operations are, torch compiles nothing
    assert not counters["graph_break"]
    assert compiler.frame_count == 2  # real images without gradients, synthetic ones with


@fused
def test_a_training_step_costs_the_same_whatever_came_before(calls: Calls) -> None:
    images = torch.randn(32, 3, 16, 16, generator=stream(0, "images"))
    labels = torch.arange(32) % 2
    counted = []
    for epochs in (2, 3, 4):
        network = convnet((3, 16, 16), 2, depth=2, width=32, generator=stream(0, "network"))
        config = TrainingConfig(epochs=epochs, batch_size=32, augmentation="flip")
        calls.counts.clear()
        with Operations() as operations:
            train(network, images, labels, config=config, seed=0, device=CPU)
        counted.append((sum(operations.counts.values()), Counter(calls.counts)))
    (first, second, third), kernels_called = zip(*counted, strict=True)
    assert third - second == second - first <= 300
    step = kernels_called[1] - kernels_called[0]
    assert step == kernels_called[2] - kernels_called[1]
    assert step["patches_forward"] == step["patches_gradient"] == 1
    assert step["patches_backward"] == 0  # nobody asks for the pictures' gradient
    assert step["winograd_forward"] == 2
    assert step["winograd_gradient"] == 1
    assert step["own_forward"] == step["own_backward"] == 2


@fused
def test_nothing_waits_for_the_device_within_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a number is what makes a GPU's queue run dry: once an epoch, however many its steps."""
    images = torch.randn(32, 3, 16, 16, generator=stream(0, "images"))
    labels = torch.arange(32) % 2
    lists: list[Tensor] = []
    listed = Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda tensor: (lists.append(tensor), listed(tensor))[1])
    for batch in (32, 4):
        lists.clear()
        network = convnet((3, 16, 16), 2, depth=2, width=32, generator=stream(0, "network"))
        config = TrainingConfig(epochs=2, batch_size=batch, augmentation="none")
        with Operations() as operations:
            train(network, images, labels, config=config, seed=0, device=CPU)
        assert operations.counts["_local_scalar_dense"] == 0
        assert len(lists) == 2

"""What is measured: training steps and distillation iterations, by a straightforward script and by ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import search_spaces
from atom_nas.bench.turns import Turns
from atom_nas.estimators.measure import network_costs
from distill import methods
from distill.augment import draw, parse_strategy
from distill.checkpoint import State
from distill.data import Split
from distill.graphs import Material, RecordedSteps
from distill.matching import matching_loss, statistics
from distill.methods._matching import MatchingConfig
from distill.methods.base import Problem
from distill.networks import convnet, convnet_operations, fitting_depth
from distill.precision import Precision, autocast
from distill.preprocessing import fit_preprocessing
from distill.seeding import stream
from distill.session import Session
from distill.training import TrainingConfig, accelerated
from distill.training import train as train_network


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Sizes: CIFAR-10's images, the papers' batches.

    Attributes:
        image_shape: (C, H, W).
        ipc, batch_real: synthetic and real images a class and iteration.
        batch: images of a training step.
    """

    image_shape: tuple[int, int, int] = (3, 32, 32)
    classes: int = 10
    ipc: int = 10
    batch_real: int = 64
    batch: int = 100


def training_operations(architecture: str, scale: Scale) -> float:
    """Of one image's training step: a forward pass and twice as much backward."""
    return 3 * network_costs(_network(architecture, scale), scale.image_shape)["flops"]


def matching_operations(scale: Scale) -> float:
    """Of an iteration: forward for all images, backward (as much again) for the synthetic ones."""
    passes = scale.classes * (scale.batch_real + 2 * scale.ipc)
    return passes * convnet_operations(scale.image_shape, fitting_depth(scale.image_shape), 128)


def train_plainly(turns: Turns, architecture: str, device: torch.device, scale: Scale) -> None:
    """Eager float32, as a textbook has it."""
    images, labels = _batch(device, scale)
    _train(turns, _network(architecture, scale).to(device), images, labels, "float32")


def train(
    turns: Turns,
    architecture: str,
    device: torch.device,
    scale: Scale,
    precision: Precision,
    recorded: bool = True,
) -> None:
    """As `distill.training.train` does; where `recorded`, by CUDA graphs on a GPU."""
    images, labels = _batch(device, scale)
    network = _network(architecture, scale).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if device.type == "cuda" and recorded:
        _replay(turns, network.train(), images, labels, precision)
    else:
        images = images.contiguous(memory_format=torch.channels_last)
        _train(turns, accelerated(network, device), images, labels, precision)


def _replay(turns: Turns, network: nn.Module, images: Tensor, labels: Tensor, precision: Precision) -> None:
    config = TrainingConfig(batch_size=len(images), precision=precision)
    steps = RecordedSteps(Material(network, images, labels, None, config, ()))
    order, generator = torch.arange(len(images)), stream(0, "bench order")
    while True:
        turns.wait()
        steps.epoch(order, generator, [config.learning_rate])


def epoch(turns: Turns, architecture: str, device: torch.device, images: int, scale: Scale) -> None:
    """`distill.training.train` for one epoch over a number of images."""
    chosen = torch.arange(images) % scale.batch
    pixels, labels = (each[chosen] for each in _batch(device, scale))
    network = _network(architecture, scale)
    config = TrainingConfig(epochs=1, batch_size=scale.batch)
    while True:
        turns.wait()
        train_network(network, pixels, labels, config=config, seed=0, device=device)


def _settings_of(method: str) -> type[MatchingConfig]:
    """Of one of the methods that `bench` measures, all of which match."""
    config = methods.load(method).Config
    assert issubclass(config, MatchingConfig), method
    return config


def match(turns: Turns, method: str, device: torch.device, scale: Scale, options: Mapping[str, Any]) -> None:
    """Our engine with the given settings; whatever is compiled is compiled in the first turns."""
    config = _settings_of(method)(iterations=10**9, batch_real=scale.batch_real, **options)
    turns.wait()
    methods.load(method).distill(problem(device, scale), config, _Turning(turns))


def match_plainly(turns: Turns, method: str, device: torch.device, scale: Scale) -> None:
    """A new network every iteration, one class after the other, eager float32: as the public scripts do."""
    posed, images = problem(device, scale), None
    prepared = posed.preprocessing(posed.real.images).to(device)
    for number in range(10**9):
        turns.wait()
        images = plain_iteration(method, posed, prepared, images, number)


def plain_iteration(
    method: str, posed: Problem, prepared: Tensor, images: Tensor | None, number: int
) -> Tensor:
    """One iteration of the straightforward script: the pixels after a step of gradient descent.

    Args:
        prepared: all real images in model space, on the device, where such scripts keep them.
    """
    weights, names = _settings_of(method)().weights, parse_strategy("dsa")
    shape, device, ipc = posed.image_shape, posed.device, posed.ipc
    generator = stream(0, "bench", method, number)
    if images is None:
        images = torch.randn(len(posed.classes) * ipc, *shape, generator=generator).to(device)
    network = convnet(shape, len(posed.classes), depth=fitting_depth(shape), generator=generator).to(device)
    images.requires_grad_(True)
    loss = torch.zeros((), device=device)
    for k, pool in enumerate(posed.pools()):
        real = prepared[pool[torch.randperm(len(pool), generator=generator)[: len(pool) // 2]]]
        augment = draw(names, generator)
        with torch.no_grad():
            target = statistics(*network.features(augment(real)), classes=1, weights=weights)
        own = augment(images[k * ipc : (k + 1) * ipc])
        loss = (
            loss
            + matching_loss(
                target, statistics(*network.features(own), classes=1, weights=weights), weights=weights
            ).total
        )
    (gradient,) = torch.autograd.grad(loss, images)
    return (images.detach() - gradient).detach()


def problem(device: torch.device, scale: Scale) -> Problem:
    """Random images of `scale.classes` classes, twice as many a class as a batch takes."""
    labels = torch.arange(scale.classes).repeat_interleave(2 * scale.batch_real)
    size = (len(labels), *scale.image_shape)
    pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=stream(0, "bench pixels"))
    return Problem(
        real=Split(pixels, labels),
        classes=tuple(map(str, range(scale.classes))),
        preprocessing=fit_preprocessing(pixels, zca=False),
        ipc=scale.ipc,
        seed=0,
        device=device,
    )


class _Turning(Session):
    """An iteration is a turn."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def after(self, state: State, total: int) -> None:  # noqa: ARG002
        self._turns.wait()


def _network(architecture: str, scale: Scale) -> nn.Module:
    space = search_spaces.load("convnet")
    return space.build(space.parse(architecture), scale.image_shape, scale.classes)


def _batch(device: torch.device, scale: Scale) -> tuple[Tensor, Tensor]:
    images = torch.randn(scale.batch, *scale.image_shape, generator=stream(0, "bench batch"))
    return images.to(device), (torch.arange(scale.batch) % scale.classes).to(device)


def _train(turns: Turns, network: nn.Module, images: Tensor, labels: Tensor, precision: Precision) -> None:
    optimizer = torch.optim.SGD(network.train().parameters(), 0.01, 0.9, weight_decay=5e-4)
    while True:
        turns.wait()
        optimizer.zero_grad(set_to_none=True)
        with autocast(images.device, precision):
            logits = network(images)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

"""The one loop that trains a network on images, real or synthetic, and the one that tests it.

Letters: N images, C channels, H x W pixels.
"""

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill import kernels
from distill.augment import draw, parse_strategy
from distill.fusion import fuse
from distill.graphs import Material, Steps, recorded
from distill.passes import epoch_order
from distill.precision import PRECISIONS, Precision, autocast, require, settle
from distill.preprocessing import Preprocessing
from distill.process import keep_freed_memory
from distill.seeding import derive_seed, own_randomness, stream
from distill.sources import suited_augmentation
from distill.validation import require_types

_MOST = 10**9  # images a step, or epochs
_STEPS_UNSEEN = 64
"""Steps after which losses are read off a GPU, for which it is waited for."""
Schedule = Literal["step", "cosine", "onecycle", "constant"]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a network is trained.

    The field's recipe (Zhao and Bilen 2023): SGD, learning rate 0.01, momentum 0.9, weight decay 5e-4,
    a tenth of the learning rate from half time on, DSA.

    Attributes:
        epochs: passes over the images.
        batch_size: images a step; a smaller set is one batch.
        learning_rate: of SGD.
        momentum: of SGD, without Nesterov's correction.
        weight_decay: of SGD, on every parameter.
        schedule: `step` (x0.1 at half time), `cosine` to zero, `onecycle` (linear warm-up over 30%), or
            `constant`.
        augmentation: `dsa`, `none`, or transforms joined by `_` (color, crop, cutout, flip, scale, rotate).
        precision: `bfloat16` runs convolutions, on a GPU also matrix products, in bfloat16; the commands fall
            back to float32, and say so, on machines that do not have it.
    """

    epochs: int = 300
    batch_size: int = 256
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = "step"
    augmentation: str = "dsa"
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        require_types(self)
        for field in ("epochs", "batch_size", "learning_rate"):
            if not 0 < getattr(self, field) < float("inf"):
                raise ValueError(f"{field} must be positive and finite, not {getattr(self, field)}")
        for field in ("epochs", "batch_size"):
            if getattr(self, field) > _MOST:
                raise ValueError(f"{field} must be at most {_MOST:,}, not {getattr(self, field):,}")
        if not 0 <= self.momentum < 1 or not 0 <= self.weight_decay < float("inf"):
            raise ValueError(
                f"momentum must lie in [0, 1) and weight_decay must be finite and not negative, "
                f"not {self.momentum} and {self.weight_decay}"
            )
        for field, allowed in (("schedule", get_args(Schedule)), ("precision", PRECISIONS)):
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field} must be one of {', '.join(allowed)}, not {getattr(self, field)!r}")
        parse_strategy(self.augmentation)

    def suited_to(self, dataset: str) -> "TrainingConfig":
        """The same with `dsa` spelled out for a dataset, see `distill.sources.suited_augmentation`."""
        return replace(self, augmentation=suited_augmentation(self.augmentation, dataset))

    def settled(self, device: torch.device) -> "tuple[TrainingConfig, str | None]":
        """The same in a precision that the device has, and why if that is another, see `settle`."""
        precision, reason = settle(self.precision, device)
        return replace(self, precision=precision), reason

    def as_dict(self) -> dict[str, int | float | str]:
        """The fields by name, for records."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class TrainingRecord:
    """What a training leaves behind.

    Attributes:
        epoch_losses: mean cross-entropy over the images of each epoch, as trained (with augmentation).
        seconds: wall time.
        momentum: of SGD, a tensor a parameter in their order; with the network, all that a training that
            stopped between two epochs needs to go on.
    """

    epoch_losses: tuple[float, ...]
    seconds: float
    momentum: tuple[Tensor, ...] = ()

    @property
    def final_loss(self) -> float:
        """Of the last epoch."""
        return self.epoch_losses[-1]

    @property
    def summed_loss(self) -> float:
        """Sum over epochs (Ru et al. 2021, arXiv:2006.04492: the training speed estimate)."""
        return sum(self.epoch_losses)


@dataclass(frozen=True)
class Evaluation:
    """How a network does on n images.

    Attributes:
        accuracy: the share of the images that it is right on.
        loss: mean cross-entropy.
        n: how many images there are.
        by_class: of the images of each class, the share that it is right on; None where there are none.
    """

    accuracy: float
    loss: float
    n: int
    by_class: tuple[float | None, ...]

    @property
    def balanced(self) -> float:
        """Balanced accuracy: the mean over the classes that there are images of."""
        return statistics.fmean(share for share in self.by_class if share is not None)

    def accuracy_by(self, *, balanced: bool) -> float:
        """The balanced accuracy, or the plain one."""
        return self.balanced if balanced else self.accuracy


def train(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    config: TrainingConfig,
    seed: int,
    device: torch.device,
    preprocessing: Preprocessing | None = None,
    on_epoch: Callable[[int], None] | None = None,
    until: int | None = None,
    after: TrainingRecord | None = None,
    images_an_epoch: int | None = None,
) -> TrainingRecord:
    """Train in place; batches, their order, their augmentation and dropout depend on `seed` alone.

    A training in parts, each going on from the network and the record of the one before, ends in the same
    bits as one that was not interrupted.

    Args:
        network: (N, C, H, W) to logits; moved to `device`.
        images: float32 in model space, or uint8 together with `preprocessing`. (N, C, H, W).
        labels: int64 (N,), or probabilities of the K classes, float32 (N, K).
        seed: names the random streams; the network's own weights are the caller's.
        preprocessing: applied to each batch on the device.
        on_epoch: called with the number of finished epochs.
        until: stop when so many epochs are done; None: at `config.epochs`. The schedule is that of all.
        after: of the part before, whose network this is; None: none.
        images_an_epoch: look at so many in an epoch, not at all, see `distill.passes.epoch_order`.
    Raises:
        FloatingPointError: if an epoch's loss is not finite.
        ValueError: if this machine cannot run `config.precision`.
    """
    require(config.precision, device)
    started = time.perf_counter()
    network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    losses = list(after.epoch_losses) if after else []
    material = Material(
        network=network,
        images=images.to(device),
        labels=labels.to(device),
        preprocessing=preprocessing.to(device) if preprocessing else None,
        config=config,
        momentum=tuple(each.to(device) for each in after.momentum) if after else (),
        images_an_epoch=images_an_epoch,
    )
    passes = recorded(material, config.epochs * material.epoch_steps) or _EagerSteps(material)
    last = config.epochs if until is None else min(until, config.epochs)
    _pass_over(passes, material, losses, last, seed, on_epoch)
    return TrainingRecord(tuple(losses), time.perf_counter() - started, passes.momentum)


def _pass_over(
    passes: Steps,
    material: Material,
    losses: list[float],
    last: int,
    seed: int,
    on_epoch: Callable[[int], None] | None,
) -> None:
    """The epochs up to `last` whose losses are not there yet; they are added."""
    images, config, steps = material.epoch_images, material.config, material.epoch_steps
    rates = _rates(config, config.epochs * steps)
    often = 1 if material.images.device.type == "cpu" else _STEPS_UNSEEN
    unread: list[Tensor] = []
    for epoch in range(len(losses), last):
        generator = stream(seed, "epoch", epoch)
        order = epoch_order(
            len(material.images), material.images_an_epoch, seed=seed, epoch=epoch, generator=generator
        )
        with own_randomness(derive_seed(seed, "dropout", epoch), material.images.device):
            unread.append(passes.epoch(order, generator, rates[epoch * steps : (epoch + 1) * steps]))
        if len(unread) * steps >= often or epoch == last - 1:
            for total in torch.stack(unread).tolist():
                losses.append(_finite(total / images, len(losses)))
            unread.clear()
        if on_epoch:
            on_epoch(epoch + 1)


class _EagerSteps:
    """See `distill.graphs.Steps`: one operation after the other."""

    def __init__(self, material: Material) -> None:
        self._of, config, device = material, material.config, material.images.device
        self._optimizer = torch.optim.SGD(
            material.network.parameters(),
            config.learning_rate,
            config.momentum,
            weight_decay=config.weight_decay,
        )
        parameters = self._optimizer.param_groups[0]["params"]
        for parameter, momentum in zip(parameters, material.momentum, strict=bool(material.momentum)):
            self._optimizer.state[parameter]["momentum_buffer"] = momentum.clone(
                memory_format=torch.preserve_format
            )
        self._compute = accelerated(material.network, device)

    @property
    def momentum(self) -> tuple[Tensor, ...]:
        """See `Steps`."""
        parameters = self._optimizer.param_groups[0]["params"]
        buffers = [self._optimizer.state[parameter].get("momentum_buffer") for parameter in parameters]
        if all(buffer is None for buffer in buffers):
            return ()
        # What has no gradient, as layers off a cell's path, has no momentum either, which is one of zero.
        return tuple(
            torch.zeros_like(parameter) if buffer is None else buffer.detach()
            for parameter, buffer in zip(parameters, buffers, strict=True)
        )

    def epoch(self, order: Tensor, generator: torch.Generator, rates: Sequence[float]) -> Tensor:
        """See `Steps`."""
        of = self._of
        total = torch.zeros((), device=of.images.device)
        batches = order.to(of.images.device).split(of.config.batch_size)
        for batch, rate in zip(batches, rates, strict=True):
            chosen = of.images.index_select(0, batch)
            inputs = _prepare(chosen, of.preprocessing, of.config, generator)
            self._optimizer.param_groups[0]["lr"] = rate
            total += _step(self._compute, inputs, of.labels[batch], self._optimizer, of.config) * len(batch)
        return total


def accelerated(network: nn.Module, device: torch.device) -> nn.Module:
    """What computes the same with the same parameters, but for rounding, as fast as this machine can.

    Its graph can be gone through backward once only.
    """
    if device.type != "cpu" or kernels.why_unavailable():
        return network
    fused = fuse(network)
    keep_freed_memory(fused is not network)
    return fused


def _prepare(
    images: Tensor, preprocessing: Preprocessing | None, config: TrainingConfig, generator: torch.Generator
) -> Tensor:
    if preprocessing:
        images = preprocessing(images)
    augmentation = draw(parse_strategy(config.augmentation), generator, rows=len(images))
    return augmentation(images).contiguous(memory_format=torch.channels_last)


def _step(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    optimizer: torch.optim.Optimizer,
    config: TrainingConfig,
) -> Tensor:
    optimizer.zero_grad(set_to_none=True)
    with autocast(inputs.device, config.precision):
        logits = network(inputs)
    loss = F.cross_entropy(logits.float(), labels)
    loss.backward()
    optimizer.step()
    return loss.detach()


@functools.lru_cache(maxsize=8)
def _rates(config: TrainingConfig, steps: int) -> tuple[float, ...]:
    """The rate of every step, as torch's schedulers have it; the same for all parts of a training."""
    optimizer = torch.optim.SGD([torch.zeros(())], config.learning_rate)
    scheduler = _scheduler(optimizer, config, steps)
    rates = []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return tuple(rates)


def _scheduler(
    optimizer: torch.optim.Optimizer, config: TrainingConfig, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if config.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    if config.schedule == "onecycle" and steps > 1:
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, config.learning_rate, steps, anneal_strategy="linear", cycle_momentum=False
        )
    if config.schedule in ("constant", "onecycle"):  # a cycle of one step would end before it begins
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, [])
    # One batch may be the whole training: then there is no second half.
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, [max(1, steps // 2)])


def _finite(loss: float, epoch: int) -> float:
    if loss != loss or loss in (float("inf"), float("-inf")):
        raise FloatingPointError(f"training loss is {loss} in epoch {epoch + 1}")
    return loss


@torch.no_grad()
def evaluate(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    device: torch.device,
    preprocessing: Preprocessing | None = None,
    batch_size: int | None = None,
    precision: Precision = "float32",
) -> Evaluation:
    """Accuracy and mean cross-entropy in evaluation mode.

    Args:
        network: already on `device`.
        images: float32 in model space, or uint8 together with `preprocessing`. (N, C, H, W), N >= 1.
        labels: int64 (N,).
        batch_size: images at once; None: 125, on a GPU, where launching is what takes time, more of small
            ones: as many as have the pixels of 500 of 32x32.
    """
    size = batch_size or (125 if device.type == "cpu" else max(125, 500 * 32**2 // images[0, 0].numel()))
    compute = accelerated(network.eval(), device)
    preprocessing = preprocessing.to(device) if preprocessing else None
    matches: list[Tensor] = []
    loss = torch.zeros((), device=device, dtype=torch.float64)
    for batch, target in zip(images.split(size), labels.split(size), strict=True):
        inputs, target = batch.to(device), target.to(device)
        if preprocessing:
            inputs = preprocessing(inputs)
        with autocast(device, precision):
            logits = compute(inputs.contiguous(memory_format=torch.channels_last)).float()
        matches.append(logits.argmax(dim=1) == target)
        loss += F.cross_entropy(logits, target, reduction="sum").double()
    right, labels = torch.cat(matches).cpu(), labels.cpu()
    counts = (found.bincount(minlength=logits.shape[1]).tolist() for found in (labels[right], labels))
    by_class = tuple(hits / n if n else None for hits, n in zip(*counts, strict=True))
    return Evaluation(int(right.sum()) / len(images), float(loss) / len(images), len(images), by_class)

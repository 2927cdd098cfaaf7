"""CAFE: what a plain script gives, cut anywhere, refused where it cannot be."""

import math
from typing import Any

import pytest
import torch
from distill_helpers import problem, stops_at
from torch import Tensor
from torch.nn import functional as F

from distill.augment import DSA, draw
from distill.formation import decode
from distill.methods import cafe
from distill.methods._pixels import draw_batch, initial_state
from distill.methods.base import Problem
from distill.networks import ConvNet, convnet
from distill.seeding import stream
from distill.session import Interrupted, RecordedSession, Session

QUICK = {"iterations": 2, "width": 8, "batch_real": 5, "pixel_steps": 2, "network_epochs": 2}
COUNTS = (12, 7, 12, 4)


def run(session: Session | None = None, *, ipc: int = 2, **config: Any) -> Tensor:
    return cafe.distill(problem(COUNTS, ipc=ipc), cafe.Config(**{**QUICK, **config}), session or Session())


def blocks(net: ConvNet, images: Tensor) -> list[Tensor]:
    """The output of each block, by the layers one after the other."""
    signal, found = images, []
    for block in net.blocks:
        signal = F.avg_pool2d(F.relu(block.norm(block.conv(signal))), 2)
        found.append(signal.flatten(1))
    return found


def scripted(
    posed: Problem, *, names: tuple[str, ...] = (), beta: float = 1.0, factor: int = 1, loops: int = 2
) -> tuple[Tensor, Tensor]:
    """As a plain script: the whole loss at once, torch's own optimisers, the same random numbers.

    `loops` is the number of networks and of pixel steps a network.
    """
    start = initial_state(posed, "real", factor).images
    pixels = start.clone().requires_grad_(True)
    optimizer = torch.optim.SGD([pixels], lr=0.1, momentum=0.5)
    classes, each = len(posed.classes), posed.ipc * factor**2
    labels = torch.arange(classes).repeat_interleave(each)
    for it in range(loops):
        generator = stream(posed.seed, "network", it)
        net = convnet(posed.image_shape, classes, depth=2, width=8, generator=generator)
        trainer = torch.optim.SGD(net.parameters(), lr=0.01)
        for step in range(loops):
            means, total, features = [], torch.zeros(()), []
            for k, pool in enumerate(posed.pools()):
                generator = stream(posed.seed, "class", it, step, k)
                real = posed.preprocessing(posed.real.images[draw_batch(pool, 5, generator)])
                augmentation = draw(names, generator)
                own = decode(pixels[k * posed.ipc : (k + 1) * posed.ipc], factor)
                with torch.no_grad():
                    targets = blocks(net, augmentation(real))
                layers = blocks(net, augmentation(own))
                for target, layer in zip(targets, layers, strict=True):
                    total = total + ((target.mean(0) - layer.mean(0)) ** 2).sum()
                means.append(layers[-1].mean(0))
                features.append(targets[-1])
            for k, real in enumerate(features):
                logits = real @ torch.stack(means).t() / math.sqrt(real.shape[1])
                total = total + beta * F.cross_entropy(logits, torch.full((len(real),), k))
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            for _ in range(2 if step + 1 < loops else 0):
                trainer.zero_grad()
                F.cross_entropy(net(decode(pixels.detach(), factor)), labels).backward()
                trainer.step()
    return start, pixels.detach()


@pytest.mark.parametrize(("beta", "factor"), [(1.0, 1), (0.0, 1), (20.0, 1), (2.0, 2)])
def test_it_is_what_a_plain_script_gives(beta: float, factor: int) -> None:
    start, expected = scripted(problem(COUNTS), beta=beta, factor=factor)
    found = run(augmentation="none", beta=beta, factor=factor)
    assert float((expected - start).norm()) > 1e-3
    assert float((found - expected).norm() / (expected - start).norm()) < 1e-3


def test_real_and_synthetic_images_are_augmented_alike() -> None:
    """One step: the network's training, whose images are augmented one by one, comes after it."""
    start, expected = scripted(problem(COUNTS), names=DSA, loops=1)
    found = run(pixel_steps=1, iterations=1)
    assert float((found - expected).norm() / (expected - start).norm()) < 1e-3
    assert not torch.allclose(found, run(pixel_steps=1, iterations=1, augmentation="none"))


def test_how_many_classes_are_computed_together_changes_rounding_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together = run()
    monkeypatch.setattr(cafe, "_TOGETHER", 1)
    assert torch.allclose(run(), together, atol=1e-4)


def test_the_loss_goes_down() -> None:
    class Recording(Session):
        log_every = 1

        def after(self, state: Any, total: int) -> None:
            self.curve = state.curve

    session = Recording()
    run(session, iterations=40, initialization="noise", width=16, pixel_steps=1, learning_rate=0.3)
    losses = [point["loss"] for point in session.curve]
    assert len(losses) == 40
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


@pytest.mark.parametrize(("stop", "done"), [(1, 0), (2, 1)])
def test_an_interrupted_run_goes_on_to_the_same_bits(stop: int, done: int, tmp_path: Any) -> None:
    with pytest.raises(Interrupted):
        run(RecordedSession(tmp_path, {}, resume=False, should_stop=stops_at(stop)))
    seen: list[Any] = []
    resumed = run(RecordedSession(tmp_path, {}, resume=True, on_progress=seen.append))
    assert torch.equal(resumed, run())
    assert [progress.done for progress in seen] == list(range(done + 1, 3))


def test_a_loss_that_explodes_names_iteration_and_class() -> None:
    with pytest.raises(ValueError, match=r"not finite at iteration \d+ \(class class-\d\)"):
        run(learning_rate=1e30, iterations=10, pixel_steps=1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"beta": -1.0}, "beta must not be negative"), ({"beta": math.nan}, "beta"),
     ({"augmentation": "blur"}, "blur")],
)  # fmt: skip
def test_wrong_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cafe.Config(**wrong)


def test_some_classes_alone_are_refused() -> None:
    with pytest.raises(ValueError, match="needs all classes at once"):
        cafe.distill(problem(COUNTS, ipc=2, subset=(0, 1)), cafe.Config(**QUICK), Session())

"""Networks are the same only if nothing of them differs."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.identity import identity_of


class Block(nn.Module):
    """A layer that does more than its weights say."""

    def __init__(
        self,
        act: Callable[[Tensor], Tensor] = F.relu,
        scale: float = 1.0,
        std: float = 1.0,
        more: object = None,
    ) -> None:
        super().__init__()
        self.layer, self.act, self.scale, self.more = nn.Linear(4, 4), act, scale, more
        nn.init.normal_(self.layer.weight, std=std)

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.act(self.layer(features)) * self.scale
        return result


def doubled(features: Tensor, by: float = 2.0) -> Tensor:
    return features * by


def made(make: Callable[[], nn.Module]) -> str | None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return identity_of(make())


def buffered(value: float) -> nn.Module:
    block = Block()
    block.register_buffer("shift", torch.tensor(value))
    return block


def tied(*, tie: bool) -> nn.Module:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].load_state_dict(network[0].state_dict())
    if tie:
        network[1].weight = network[0].weight
    return network


def frozen(*, free: bool) -> nn.Module:
    return Block().requires_grad_(free)


def named(name: str) -> nn.Module:
    block = Block()
    block._frozen_context = {"unused": name}  # type: ignore[assignment]
    return block


def test_the_same_network_has_the_same_digest() -> None:
    first = made(Block)
    assert first == made(Block)
    assert str(first).startswith("sha256:")
    assert made(lambda: Block(more=[1, {"a": (2.0, None)}])) == made(
        lambda: Block(more=[1, {"a": (2.0, None)}])
    )
    assert made(lambda: named("conv")) == made(lambda: named("pool"))  # names are no part of it


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Block, lambda: Block(scale=2.0)),
        (Block, lambda: Block(std=0.1)),
        (Block, lambda: Block(act=F.gelu)),
        (lambda: Block(act=F.relu), lambda: Block(act=doubled)),
        (lambda: Block(more=1), lambda: Block(more=1.0)),
        (lambda: Block(more=[1, 2]), lambda: Block(more=(1, 2))),
        (lambda: Block(more=torch.ones(2)), lambda: Block(more=torch.zeros(2))),
        (lambda: nn.Sequential(nn.ReLU()), lambda: nn.Sequential(nn.Tanh())),
        (lambda: nn.Dropout(0.1), lambda: nn.Dropout(0.2)),
        (
            lambda: nn.Conv2d(4, 4, 3, padding=1),
            lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        ),
        (lambda: buffered(1.0), lambda: buffered(2.0)),
        (lambda: tied(tie=True), lambda: tied(tie=False)),
        (lambda: frozen(free=True), lambda: frozen(free=False)),
        (lambda: Block().eval(), Block),
        (lambda: Block().double(), Block),
    ],
)
def test_whatever_differs_is_seen(one: Callable[[], nn.Module], other: Callable[[], nn.Module]) -> None:
    assert made(one) is not None
    assert made(one) != made(other)


def test_what_cannot_be_read_has_no_digest() -> None:
    scale = 2.0

    class Inner(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return features * scale

    assert made(Inner) is None
    assert made(lambda: Block(more=object())) is None
    assert made(lambda: Block(act=lambda features: features * scale)) is None
    assert made(lambda: Block(more=[nn.Linear(2, 2)])) is None
    assert made(lambda: Block(act=torch.ones(1).mul)) is None

"""Fused tails against the same modules in float64; what is fused; and life without a compiler."""

import copy
import itertools

import pytest
import torch
from torch import nn

from distill import kernels, training
from distill.convolution import Convolution
from distill.fusion import Tail, fuse
from distill.networks import build
from distill.seeding import stream
from distill.training import TrainingConfig, evaluate, train

MISSING = kernels.why_unavailable()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"no kernels: {MISSING}")

CHANNELS, HEIGHT, WIDTH = 12, 7, 5  # odd sides: pooling leaves a row and a column over
NORMS = {
    "none": lambda: nn.Identity(),
    "batch": lambda: nn.BatchNorm2d(CHANNELS),
    "layer": lambda: nn.LayerNorm((CHANNELS, HEIGHT, WIDTH)),
    "instance": lambda: nn.GroupNorm(CHANNELS, CHANNELS),
    "group": lambda: nn.GroupNorm(4, CHANNELS),
}
ACTIVATIONS = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "leaky": lambda: nn.LeakyReLU(0.2),
    "sigmoid": nn.Sigmoid,
}
POOLINGS = {"none": nn.Identity, "max": lambda: nn.MaxPool2d(2), "average": lambda: nn.AvgPool2d(2)}
COMBINATIONS = [c for c in itertools.product(NORMS, ACTIVATIONS, POOLINGS) if c != ("none", "none", "none")]


def block(norm: str, activation: str, pooling: str) -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, CHANNELS, 3, padding=1, bias=False),
        NORMS[norm](),
        ACTIVATIONS[activation](),
        POOLINGS[pooling](),
    )
    for name, parameter in made.named_parameters():
        if not name.startswith("0."):
            nn.init.uniform_(parameter, -0.5, 1.0)
    return made


def worst(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    """The largest deviation, as a share of the largest value of its tensor."""
    pairs = zip(found, wanted, strict=True)
    return max(float((a.double() - b).abs().max() / b.abs().max().clamp_min(1e-3)) for a, b in pairs)


def passes(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Output and all gradients of a pass in training mode, running statistics, output in evaluation mode."""
    images = images.clone().requires_grad_(True)
    out = network.train()(images)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
    out.backward(weights)
    gradients = [images.grad, *(p.grad for p in network.parameters())]
    buffers = [b for b in network.buffers() if b.is_floating_point()]
    with torch.no_grad():
        evaluated = network.eval()(images)
    return [t.detach().clone() for t in (out, *gradients, *buffers, evaluated)]


@pytest.mark.parametrize(("norm", "activation", "pooling"), COMBINATIONS)
def test_a_tail_computes_what_its_modules_do(norm: str, activation: str, pooling: str) -> None:
    plain = block(norm, activation, pooling)
    exact = copy.deepcopy(plain).double()
    fused = fuse(plain)
    assert [type(layer) for layer in fused] == [Convolution, Tail]
    images = torch.randn(4, 3, HEIGHT, WIDTH) + 0.5
    assert worst(passes(fused, images), passes(exact, images.double())) < 2e-5


@pytest.mark.parametrize(
    ("norm", "activation", "pooling"), [("instance", "relu", "average"), ("batch", "sigmoid", "max")]
)
def test_bfloat16_maps_are_rounded_and_nothing_else(norm: str, activation: str, pooling: str) -> None:
    tail = fuse(block(norm, activation, pooling))[1]
    maps = torch.randn(4, CHANNELS, HEIGHT, WIDTH).bfloat16()
    exact = copy.deepcopy(tail)
    found, wanted = passes(tail, maps), passes(exact, maps.float())
    assert found[0].dtype == torch.bfloat16
    assert worst(found, [w.double() for w in wanted]) < 0.02


def test_means_far_from_zero_do_not_cancel() -> None:
    tail = Tail(nn.GroupNorm(CHANNELS, CHANNELS), None, None)
    maps = torch.randn(2, CHANNELS, HEIGHT, WIDTH)
    shifted = tail(maps + 1000.0)
    exact = nn.functional.group_norm((maps + 1000.0).double(), CHANNELS)
    assert torch.allclose(shifted.double(), exact, atol=2e-3)


def test_sums_over_large_maps_are_as_exact_as_torchs() -> None:
    plain = block("instance", "relu", "average")
    images, exact = torch.randn(1, 3, 224, 224) + 0.5, copy.deepcopy(plain).double()
    wanted = passes(exact, images.double())
    fused, own = passes(fuse(copy.deepcopy(plain)), images), passes(plain, images)
    for part in (slice(0, 1), slice(3, 5)):  # what comes out, and the gradients of weight and bias
        assert worst(fused[part], wanted[part]) < 3 * worst(own[part], wanted[part]) + 1e-6


@pytest.mark.parametrize("norm", ["none", "batch", "instance"])
def test_a_graph_whose_maps_are_spent_is_not_gone_through_twice(norm: str) -> None:
    """Of a network; a tail alone leaves what it was given as it was."""
    plain, images = block(norm, "relu", "average"), torch.randn(4, 3, HEIGHT, WIDTH)
    out = fuse(plain)(images)
    out.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="backward once only"):
        out.sum().backward()
    maps = plain[0](images).detach().contiguous(memory_format=torch.channels_last)
    before = maps.clone()
    tail = Tail(*(None if type(each) is nn.Identity else each for each in plain[1:]))
    out = tail(maps.requires_grad_(True))
    assert torch.equal(*(torch.autograd.grad(out.sum(), maps, retain_graph=True)[0] for _ in range(2)))
    assert torch.equal(maps.detach(), before)


def test_equal_values_give_the_gradient_to_the_first_as_torch_does() -> None:
    plain = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.MaxPool2d(2))
    images = -torch.ones(1, 1, 4, 4)  # all dead, or all alive and equal
    assert worst(passes(fuse(copy.deepcopy(plain)), images), passes(plain, images)) < 1e-6


def test_not_a_number_stays_one() -> None:
    maps = torch.zeros(1, 8, 4, 4)
    maps[0, 0, 0, 1] = float("nan")
    for pooling in (None, nn.MaxPool2d(2), nn.AvgPool2d(2)):
        assert bool(Tail(None, nn.ReLU(), pooling)(maps).isnan().any())
        assert bool(Tail(nn.GroupNorm(2, 8), nn.Sigmoid(), pooling)(maps.bfloat16()).isnan().any())


@pytest.mark.parametrize(
    "layer",
    [
        nn.InstanceNorm2d(CHANNELS),
        nn.BatchNorm2d(CHANNELS, affine=False),
        nn.LayerNorm((CHANNELS, HEIGHT, WIDTH), bias=False),
        nn.MaxPool2d(3, 2),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.AvgPool2d(2, padding=1),
        nn.GELU(),
        nn.LayerNorm(WIDTH),
    ],
)
def test_what_has_no_fused_form_stays(layer: nn.Module) -> None:
    fused = fuse(nn.Sequential(nn.Conv2d(3, CHANNELS, 3), layer, nn.ReLU()))
    assert layer in list(fused)
    assert not any(isinstance(each, Tail) for each in fused)


class Standardised(nn.Conv2d):
    """A convolution that its class computes in another way."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        return self._conv_forward(input, self.weight - self.weight.mean(), self.bias)


class Doubled(nn.Sequential):
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        return 2 * super().forward(input)


def derived(base: type[nn.Module], *arguments: int) -> nn.Module:
    """A module of a subclass that doubles what `base` computes."""

    def forward(self: nn.Module, maps: torch.Tensor) -> torch.Tensor:
        return 2 * torch.as_tensor(base.forward(self, maps))

    return type(f"Other{base.__name__}", (base,), {"forward": forward})(*arguments)


def convolution(kind: type[nn.Conv2d] = nn.Conv2d) -> nn.Conv2d:
    torch.manual_seed(0)
    return kind(3, 16, 3, padding=1, bias=False)


def hooked() -> nn.Module:
    layer = nn.ReLU()
    layer.register_forward_hook(lambda _module, _inputs, output: 2 * output)
    return layer


def replaced() -> nn.Module:
    layer = nn.ReLU()
    layer.forward = lambda maps: 2 * maps  # type: ignore[method-assign]
    return layer


def otherwise_convolved() -> nn.Module:
    layer = convolution()
    plain = layer._conv_forward
    layer._conv_forward = lambda *given: 2 * plain(*given)  # type: ignore[method-assign]
    return layer


def frozen() -> nn.Module:
    """Statistics stay, weights are trained: as in fine-tuning."""
    norm = nn.BatchNorm2d(16)
    norm.running_mean += 0.3  # type: ignore[operator]
    norm.eval()
    norm.train = lambda mode=True: norm  # type: ignore[assignment, misc]
    return norm


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(convolution(Standardised), nn.ReLU()),
        Doubled(convolution(), nn.ReLU()),
        *(
            nn.Sequential(convolution(), derived(*layer))
            for layer in [
                (nn.BatchNorm2d, 16),
                (nn.GroupNorm, 4, 16),
                (nn.ReLU,),
                (nn.LeakyReLU,),
                (nn.Sigmoid,),
                (nn.MaxPool2d, 2),
                (nn.AvgPool2d, 2),
                (nn.Identity,),
            ]
        ),
        nn.Sequential(convolution(), hooked()),
        nn.Sequential(convolution(), replaced()),
        nn.Sequential(otherwise_convolved(), nn.ReLU()),
        nn.Sequential(convolution(), frozen(), nn.ReLU()),
        nn.Sequential(nn.utils.parametrizations.weight_norm(convolution()), nn.ReLU()),
    ],
    ids=lambda network: f"{type(network).__name__}({', '.join(type(each).__name__ for each in network)})",
)
def test_what_a_subclass_or_a_hook_does_is_done(network: nn.Module) -> None:
    """Networks of the user's are trained and scored with the kernels as well, whatever they are made of."""
    images = torch.randn(4, 3, 16, 16, generator=stream(0))
    assert worst(passes(fuse(copy.deepcopy(network)), images), passes(network, images)) < 1e-4


def test_a_norm_that_evaluates_while_gradients_are_taken_gets_its_own() -> None:
    plain = block("batch", "relu", "max")
    plain[1].running_mean += 0.3
    images = torch.randn(4, 3, HEIGHT, WIDTH)

    def gradients(network: nn.Module) -> list[torch.Tensor]:
        network.eval()(images).square().sum().backward()
        return [torch.as_tensor(parameter.grad) for parameter in network.parameters()]

    found, wanted = gradients(fuse(copy.deepcopy(plain))), gradients(plain)
    assert len(found) == 3
    assert worst(found, wanted) < 1e-4


def test_networks_in_other_numbers_and_with_hooks_on_all_modules_stay() -> None:
    network = nn.Sequential(convolution(), nn.ReLU())
    double = copy.deepcopy(network).double()
    assert fuse(double) is double
    hook = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert fuse(network) is network
    finally:
        hook.remove()
    assert fuse(network) is not network


def test_a_fused_network_shares_its_parameters_and_other_networks_stay() -> None:
    network = build("convnet3", (3, 16, 16), 10, stream(0))
    fused = fuse(network)
    assert sum(isinstance(layer, Tail) for layer in fused) == 3
    assert {id(p) for p in fused.parameters()} == {id(p) for p in network.parameters()}
    assert list(network.state_dict()) == list(build("convnet3", (3, 16, 16), 10, stream(0)).state_dict())
    other = nn.ModuleList([nn.ReLU()])
    assert fuse(other) is other
    with pytest.raises(TypeError, match="float64"):
        Tail(None, nn.ReLU(), None)(torch.zeros(1, 3, 16, 16, dtype=torch.float64))


def test_training_is_the_same_with_and_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = torch.randn(24, 3, 16, 16), torch.arange(24) % 3

    def run() -> tuple[float, ...]:
        network = build("convnet2", (3, 16, 16), 3, stream(1))
        config = TrainingConfig(epochs=4, batch_size=8)
        record = train(network, images, labels, config=config, seed=0, device=torch.device("cpu"))
        score = evaluate(network, images, labels, device=torch.device("cpu"))
        return (*record.epoch_losses, score.loss)

    fused = run()
    monkeypatch.setattr(training.kernels, "why_unavailable", lambda: "no compiler")
    assert fused == pytest.approx(run(), rel=1e-4)

"""What every registered network must do, whichever it is."""

import pytest
import torch

from distill.architectures import BUILDERS
from distill.evaluation import default_network
from distill.networks import NETWORKS, InstanceNorm, blank, build, fitting_depth, reinitialise
from distill.seeding import stream

CONVNETS = [name for name in NETWORKS if name.startswith("convnet")]


def test_every_listed_network_can_be_built_and_none_besides():
    assert list(NETWORKS) == [*CONVNETS, *BUILDERS]


@pytest.mark.parametrize("name", CONVNETS)
class TestEveryConvNet:
    def test_forward_returns_logits_and_features_their_maps(self, name):
        network = build(name, (3, 32, 32), 7, stream(0))
        images = torch.randn(2, 3, 32, 32)
        maps, embedding = network.features(images)
        assert network(images).shape == (2, 7)
        assert [m.shape[-1] for m in maps] == [32 >> i for i in range(len(maps))]
        assert all(bool((m >= 0).all()) for m in maps)
        assert torch.equal(network(images), network.classifier(embedding))

    def test_refuses_images_that_are_too_small(self, name):
        with pytest.raises(ValueError, match="shallower"):
            build(name, (1, 3, 3), 2, stream(0))


@pytest.mark.parametrize("name", NETWORKS)
class TestEveryNetwork:
    @pytest.mark.parametrize("shape", [(1, 16, 16), (3, 28, 28), (1, 33, 33)])
    def test_images_from_16_pixels_on_become_logits(self, name, shape):
        if shape[1] < 32 and name == "convnet5":
            return
        logits = build(name, shape, 7, stream(0)).eval()(torch.randn(2, *shape, generator=stream(1)))
        assert logits.shape == (2, 7)
        assert bool(torch.isfinite(logits).all())
        # What the last layer adds is the same for all images; what they look like must matter too.
        assert not torch.allclose(logits[0], logits[1], rtol=0, atol=1e-4)

    def test_every_number_comes_from_the_generator_and_none_from_torchs(self, name):
        before = torch.get_rng_state()
        first, second, other = (build(name, (1, 32, 32), 3, stream(seed)) for seed in (0, 0, 1))
        assert torch.equal(torch.get_rng_state(), before)
        for key, value in first.state_dict().items():
            assert torch.equal(value, second.state_dict()[key]), key
            drawn = len(value.unique()) > 1
            assert drawn != torch.equal(value, other.state_dict()[key]), key

    def test_nothing_survives_a_new_draw(self, name):
        network, expected = (build(name, (1, 32, 32), 3, stream(seed)) for seed in (1, 0))
        with torch.no_grad():
            for value in network.state_dict().values():
                value.fill_(float("nan") if value.is_floating_point() else 5)
        reinitialise(network, stream(0))
        for key, value in expected.state_dict().items():
            assert torch.equal(network.state_dict()[key], value), key

    def test_a_blank_one_holds_no_memory(self, name):
        network = blank(name, (3, 32, 32), 10)
        assert {p.device.type for p in network.parameters()} == {"meta"}
        assert sum(p.numel() for p in network.parameters()) == sum(
            p.numel() for p in build(name, (3, 32, 32), 10, stream(0)).parameters()
        )

    def test_reinitialises_in_place_from_the_generator_alone(self, name):
        network = build(name, (1, 32, 32), 3, stream(2))
        storage = [p.data_ptr() for p in network.parameters()]
        reinitialise(network, stream(0))
        first = [p.clone() for p in network.parameters()]
        with torch.no_grad():
            for p in network.parameters():
                p.add_(1.0)
        reinitialise(network, stream(0))
        assert all(torch.equal(p, q) for p, q in zip(network.parameters(), first, strict=True))
        assert [p.data_ptr() for p in network.parameters()] == storage
        reinitialise(network, stream(1))
        assert not torch.equal(next(network.parameters()), first[0])


def test_default_initialisation_has_pytorchs_bounds():
    network = build("convnet3", (3, 32, 32), 10, stream(0))
    weight = network.blocks[1].conv.weight.detach()
    bound = (128 * 9) ** -0.5
    assert bound * 0.99 < float(weight.abs().max()) <= bound
    assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.02)


def test_instance_norm_equals_torchs_in_both_of_its_forms(monkeypatch):
    norm, oracle = InstanceNorm(5), torch.nn.InstanceNorm2d(5, affine=True)
    with torch.no_grad():
        for layer in (norm, oracle):
            layer.weight.copy_(torch.arange(5) + 0.5)
            layer.bias.copy_(torch.arange(5) - 2.0)
    images = torch.randn(3, 5, 6, 4)
    assert torch.allclose(norm(images), oracle(images), atol=1e-5)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.allclose(norm(images), oracle(images), atol=1e-5)


@pytest.mark.parametrize(("side", "depth"), [(8, 2), (16, 2), (28, 3), (32, 3), (64, 4), (128, 5)])
def test_depth_follows_the_image_size(side, depth):
    assert fitting_depth((3, side, side)) == depth


@pytest.mark.parametrize(
    ("side", "name"), [(8, "convnet2"), (32, "convnet3"), (192, "convnet5"), (512, "convnet5")]
)
def test_sets_of_any_size_have_a_network_to_be_evaluated_by(side, name):
    assert default_network((3, side, side)) == name
    assert blank(name, (3, side, side), 2)


def test_unknown_networks_are_refused():
    with pytest.raises(ValueError, match="allowed: convnet2"):
        build("resnet", (3, 32, 32), 10, stream(0))

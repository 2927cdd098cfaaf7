"""What every registered network must do, whichever it is."""

import pytest
import torch

from distill.networks import NETWORKS, InstanceNorm, build, fitting_depth, reinitialise
from distill.seeding import stream


@pytest.mark.parametrize("name", NETWORKS)
class TestEveryNetwork:
    def test_forward_returns_logits_and_features_their_maps(self, name):
        network = build(name, (3, 32, 32), 7, stream(0))
        images = torch.randn(2, 3, 32, 32)
        maps, embedding = network.features(images)
        assert network(images).shape == (2, 7)
        assert [m.shape[-1] for m in maps] == [32 >> i for i in range(len(maps))]
        assert all(bool((m >= 0).all()) for m in maps)
        assert torch.equal(network(images), network.classifier(embedding))

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

    def test_refuses_images_that_are_too_small(self, name):
        with pytest.raises(ValueError, match="shallower"):
            build(name, (1, 3, 3), 2, stream(0))


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


def test_unknown_networks_are_refused():
    with pytest.raises(ValueError, match="allowed: convnet2"):
        build("resnet", (3, 32, 32), 10, stream(0))

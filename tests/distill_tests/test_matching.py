"""The losses against loops written from the equations in float64, and what they must refuse."""

import math

import pytest
import torch

from distill.matching import (
    LossWeights,
    Sums,
    channel_sums,
    matching_loss,
    reduce_sums,
    spatial_sums,
    statistics,
)


def features(images: int, seed: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(5, 4, 6), (3, 2, 3), (4, 1, 2)]
    return [torch.randn(images, *shape, generator=generator, dtype=dtype) for shape in shapes]


def looped_attentions(
    maps: torch.Tensor, p_s: float, p_c: float
) -> tuple[list[list[float]], list[list[float]]]:
    """Unit-norm spatial and channel attention of each image, value by value."""
    spatial, channel = [], []
    for image in maps.tolist():
        height, width = len(image[0]), len(image[0][0])
        a_s = [sum(abs(plane[h][w]) ** p_s for plane in image) for h in range(height) for w in range(width)]
        a_c = [sum(abs(v) ** p_c for row in plane for v in row) for plane in image]
        for values, out in ((a_s, spatial), (a_c, channel)):
            norm = math.sqrt(sum(v * v for v in values))
            out.append([v / norm for v in values])
    return spatial, channel


def mean_distance(real: list[list[float]], synthetic: list[list[float]]) -> float:
    total = 0.0
    for d in range(len(real[0])):
        difference = sum(row[d] for row in real) / len(real) - sum(row[d] for row in synthetic) / len(
            synthetic
        )
        total += difference**2
    return total


def looped_loss(real, synthetic, classes, p_s, p_c):
    """(L_s, L_c, L_MMD) summed over classes, from METHOD's equations."""
    sums = [0.0, 0.0, 0.0]
    for k in range(classes):
        parts = []
        for maps in (real, synthetic):
            size = len(maps[0]) // classes
            parts.append([layer[k * size : (k + 1) * size] for layer in maps])
        for r, s in zip(parts[0][:-1], parts[1][:-1], strict=True):
            (rs, rc), (ss, sc) = looped_attentions(r, p_s, p_c), looped_attentions(s, p_s, p_c)
            sums[0] += mean_distance(rs, ss)
            sums[1] += mean_distance(rc, sc)
        sums[2] += mean_distance(parts[0][-1].flatten(1).tolist(), parts[1][-1].flatten(1).tolist())
    return sums


def loss_of(real, synthetic, classes, weights):
    both = [
        statistics(maps, maps[-1].flatten(1), classes=classes, weights=weights) for maps in (real, synthetic)
    ]
    return matching_loss(*both, weights=weights)


@pytest.mark.parametrize(("p_s", "p_c"), [(1, 1), (2, 4), (4, 1), (1.5, 3)])
@pytest.mark.parametrize("classes", [1, 3])
def test_loss_equals_the_equations(p_s, p_c, classes):
    real, synthetic = features(4 * classes, 0), features(2 * classes, 1)
    weights = LossWeights(spatial=3.0, channel=0.5, mmd=0.02, spatial_power=p_s, channel_power=p_c)
    loss = loss_of(real, synthetic, classes, weights)
    l_s, l_c, l_mmd = looped_loss(real, synthetic, classes, p_s, p_c)
    # The statistics are float32 on purpose: features may come from bfloat16 layers.
    assert float(loss.spatial.sum()) == pytest.approx(3.0 * l_s, rel=2e-5)
    assert float(loss.channel.sum()) == pytest.approx(0.5 * l_c, rel=2e-5)
    assert float(loss.mmd.sum()) == pytest.approx(0.02 * l_mmd, rel=2e-5)
    assert float(loss.total) == pytest.approx(3.0 * l_s + 0.5 * l_c + 0.02 * l_mmd, rel=2e-5)


def test_attention_has_unit_norm_and_gradients_match_finite_differences():
    """Of what is matched: with an image a class the means are the images' own attention."""
    maps = features(3, 2)[0].requires_grad_(True)
    weights = LossWeights(spatial=1.0, channel=1.0, mmd=1.0)

    def attention(given, part):
        embedding = given.flatten(1)
        sums = Sums([spatial_sums(given, 2.0)], [channel_sums(given, 2.0)], embedding)
        return getattr(reduce_sums(sums, classes=3, weights=weights), part)[0]

    for part in ("spatial", "channel"):
        assert torch.allclose(attention(maps, part).norm(dim=1), torch.ones(3, dtype=torch.float64))
        assert torch.autograd.gradcheck(lambda given, part=part: attention(given, part), (maps,))


@pytest.mark.parametrize("power", [1.0, 2.0, 4.0])
def test_dead_units_and_dead_images_have_finite_gradients(power):
    synthetic = [maps.float().relu() for maps in features(2, 3)]
    synthetic = [torch.cat([maps, torch.zeros_like(maps)]).requires_grad_(True) for maps in synthetic]
    real = [maps.float() for maps in features(4, 4)]
    weights = LossWeights(spatial=1, channel=1, mmd=1, spatial_power=power, channel_power=power)
    loss_of(real, synthetic, 1, weights).total.backward()
    assert all(bool(torch.isfinite(maps.grad).all()) for maps in synthetic)


def test_real_statistics_are_constants():
    real, synthetic = features(4, 0), features(4, 1)
    for maps in (*real, *synthetic):
        maps.requires_grad_(True)
    loss_of(real, synthetic, 2, LossWeights(spatial=1, channel=1, mmd=1)).total.backward()
    assert all(maps.grad is None or not bool(maps.grad.any()) for maps in real)
    assert all(bool(maps.grad.any()) for maps in synthetic)


def test_members_of_the_family_are_weights():
    """DM is L_MMD alone, DataDAM adds L_s: dropping a weight drops exactly that part."""
    real, synthetic = features(6, 0), features(4, 1)
    full = loss_of(real, synthetic, 2, LossWeights(spatial=1, channel=1, mmd=1))
    dm = loss_of(real, synthetic, 2, LossWeights(spatial=0, channel=0, mmd=1))
    datadam = loss_of(real, synthetic, 2, LossWeights(spatial=1, channel=0, mmd=1))
    assert torch.equal(dm.per_class, full.mmd)
    assert torch.equal(datadam.per_class, full.spatial + full.mmd)


def test_classes_are_independent():
    real, synthetic = features(6, 0), features(4, 1)
    weights = LossWeights(spatial=1, channel=1, mmd=1)
    together = loss_of(real, synthetic, 2, weights).per_class
    for k in range(2):
        alone = loss_of(
            [m[3 * k : 3 * k + 3] for m in real], [m[2 * k : 2 * k + 2] for m in synthetic], 1, weights
        )
        assert torch.allclose(alone.per_class, together[k : k + 1], rtol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"spatial": -1.0},
        {"spatial": 0.0, "channel": 0.0, "mmd": 0.0},
        {"spatial_power": 0.5},
        {"channel_power": 0.0},
        {"spatial": math.nan},
        {"mmd": math.inf},
        {"spatial_power": math.nan},
        {"channel_power": math.inf},
    ],
)
def test_weights_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=r"weights|powers"):
        LossWeights(**{"spatial": 1.0, "channel": 1.0, "mmd": 1.0, **wrong})


def test_mismatched_statistics_are_refused():
    weights = LossWeights(spatial=1, channel=0, mmd=0)
    real, synthetic = features(2, 0), features(2, 1)
    with pytest.raises(ValueError, match="layers"):
        loss_of(real, synthetic[1:], 1, weights)
    with pytest.raises(ValueError, match="statistics are"):
        loss_of(real, [synthetic[1], synthetic[0], synthetic[2]], 1, weights)
    with pytest.raises(ValueError, match="divide"):
        loss_of(real, synthetic, 3, weights)

"""Multi-formation: what is cut out and enlarged, how methods start from it, and the sets that hold it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from distill_helpers import problem
from torch.nn import functional as F

import distill
from distill.augment import draw
from distill.evaluation import Evaluator
from distill.export import export
from distill.formation import decode, encode, require_factor
from distill.merging import merge
from distill.methods import load
from distill.methods._pixels import draw_batch, initial_state, random_positions
from distill.networks import convnet
from distill.pictures import as_pictures
from distill.preprocessing import fit_preprocessing
from distill.seeding import derive_seed, stream
from distill.session import Interrupted, Session
from distill.settings import DistillSettings
from distill.training import TrainingConfig

PIXELS = ["atom", "datadam", "dm", "dc", "dsa"]
CPU = torch.device("cpu")


def enlarged(small, height, width):
    """Bilinear interpolation of (C, h, w) between the centres of pixels, by its formula."""
    channels, h, w = small.shape
    out = torch.empty(channels, height, width, dtype=small.dtype)
    for y in range(height):
        for x in range(width):
            v, u = max((y + 0.5) * h / height - 0.5, 0.0), max((x + 0.5) * w / width - 0.5, 0.0)
            i, j = int(v), int(u)
            below, right = min(i + 1, h - 1), min(j + 1, w - 1)
            a, b = v - i, u - j
            upper = (1 - b) * small[:, i, j] + b * small[:, i, right]
            lower = (1 - b) * small[:, below, j] + b * small[:, below, right]
            out[:, y, x] = (1 - a) * upper + a * lower
    return out


@pytest.mark.parametrize(("factor", "height", "width"), [(2, 8, 12), (3, 12, 6), (4, 16, 8)])
def test_small_images_are_cut_out_row_by_row_and_enlarged_each_alone(factor, height, width):
    images = torch.randn(2, 3, height, width, dtype=torch.float64, generator=stream(0))
    h, w = height // factor, width // factor
    expected = [
        enlarged(image[:, i * h : (i + 1) * h, j * w : (j + 1) * w], height, width)
        for image in images
        for i in range(factor)
        for j in range(factor)
    ]
    found = decode(images, factor)
    assert found.shape == (2 * factor**2, 3, height, width)
    assert torch.allclose(found, torch.stack(expected), rtol=0, atol=1e-12)


def test_its_gradient_is_right():
    images = torch.randn(2, 1, 4, 8, dtype=torch.float64, generator=stream(1)).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: decode(x, 2).pow(2), (images,))


def test_factor_1_is_the_images_themselves():
    images = torch.randn(2, 3, 8, 8, generator=stream(2))
    assert decode(images, 1) is images
    assert encode(images, 1) is images


def test_shrunk_images_stand_where_they_are_cut_from():
    images = torch.randn(8, 3, 8, 16, generator=stream(3))
    stored = encode(images, 2)
    assert stored.shape == (2, 3, 8, 16)
    assert torch.allclose(
        stored[1, :, 4:, :8], images[6].unflatten(2, (8, 2)).unflatten(1, (4, 2)).mean((2, 4))
    )
    flat = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 8, 16)
    assert torch.equal(decode(encode(flat, 2), 2), flat)


@pytest.mark.parametrize(
    ("factor", "height", "width", "message"),
    [(0, 8, 8, r"1\.\.8, not 0"), (9, 72, 72, r"1\.\.8, not 9"), (3, 32, 32, "possible: 1, 2, 4, 8"),
     (2, 6, 6, "possible: 1$"), (2, 8, 9, "8x9 pixels.*possible: 1$"), (4, 28, 8, "possible: 1, 2$")],
)  # fmt: skip
def test_factors_that_do_not_fit_are_refused(factor, height, width, message):
    with pytest.raises(ValueError, match=message) as error:
        require_factor(factor, height, width)
    assert "\n" not in str(error.value)
    require_factor(1, height, width)


@pytest.mark.parametrize("method", PIXELS)
def test_every_method_that_moves_pixels_has_it_and_refuses_what_does_not_fit(method):
    module = load(method)
    with pytest.raises(ValueError, match=r"factor must lie in 1\.\.8, not 0"):
        module.Config(factor=0)
    with pytest.raises(ValueError, match="factor 3 does not cut images of 8x8"):
        module.distill(problem(), module.Config(factor=3, width=8), Session())
    loops = {"pixel_steps": 2, "network_epochs": 1} if method in ("dc", "dsa") else {}
    config = module.Config(factor=2, iterations=2, width=8, batch_real=4, **loops)
    images = module.distill(problem(), config, Session())
    assert images.shape == (6, 1, 8, 8)
    assert not torch.equal(images, initial_state(problem(), "real", 2).images)


def test_it_starts_from_different_real_images_as_long_as_there_are_so_many():
    posed = problem((12, 8, 5))
    positions = random_positions(posed, 4).view(3, 8)
    assert [len(row.unique()) for row in positions] == [8, 8, 5]
    counts = torch.bincount(positions[2], minlength=25)[20:]
    assert sorted(counts.tolist()) == [1, 1, 2, 2, 2]
    shrunk = F.avg_pool2d(posed.preprocessing(posed.real.images[positions[1]]), 2)
    start = initial_state(posed, "real", 2).images
    assert torch.allclose(start[2, :, :4, 4:], shrunk[1])
    assert torch.allclose(start[3, :, 4:, :4], shrunk[6])
    assert torch.equal(random_positions(posed), random_positions(posed, 1))
    assert torch.equal(initial_state(posed, "noise", 2).images, initial_state(posed, "noise").images)


@pytest.mark.parametrize(("factor", "batch"), [(2, 0), (2, 5), (1, 1)])
def test_matching_is_what_a_plain_script_gives(factor, batch):
    """Of DM: one step down the squared distance of mean features, class by class."""
    posed, names = problem(), ("flip",)
    pixels = initial_state(posed, "real", factor).images.requires_grad_(True)
    net = convnet(posed.image_shape, 3, depth=2, width=8, generator=stream(posed.seed, "network", 0))
    loss = torch.zeros(())
    for k, pool in enumerate(posed.pools()):
        generator = stream(posed.seed, "class", 0, k)
        real = posed.preprocessing(posed.real.images[draw_batch(pool, 5, generator)])
        augmentation = draw(names, generator)
        seen = decode(pixels[2 * k : 2 * k + 2], factor)
        if batch:
            seen = seen[torch.randperm(len(seen), generator=generator)[:batch]]
        means = [net.features(augmentation(images))[1].mean(dim=0) for images in (real, seen)]
        loss = loss + (means[0].detach() - means[1]).square().sum()
    (gradient,) = torch.autograd.grad(loss, pixels)
    settings = {"iterations": 1, "width": 8, "depth": 2, "batch_real": 5, "augmentation": "flip"}
    config = load("dm").Config(factor=factor, batch_synthetic=batch, **settings)
    found = load("dm").distill(posed, config, Session())
    assert float(gradient.norm()) > 1e-3
    assert torch.allclose(found, (pixels - gradient).detach(), atol=1e-5)


def test_no_batch_draws_nothing_nor_does_one_of_all():
    module = load("atom")
    config = module.Config(iterations=3, width=8, batch_real=5, factor=2)
    whole, all_8, more, some = (
        module.distill(problem(), replace(config, batch_synthetic=batch), Session())
        for batch in (0, 8, 99, 3)
    )
    assert torch.equal(whole, all_8)
    assert torch.equal(whole, more)
    assert not torch.equal(whole, some)
    with pytest.raises(ValueError, match="batch_synthetic must be 0"):
        module.Config(batch_synthetic=-1)


def settings(out, method="dm", *, ipc=2, factor=2, batch=3, width=8, **changes):
    config = load(method).Config(
        iterations=6, width=width, batch_real=8, depth=2, factor=factor, batch_synthetic=batch
    )
    given = {"dataset": "digits", "method": method, "method_config": config, "ipc": ipc, "device": "cpu"}
    return DistillSettings(out=out, **{**given, **changes})


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return distill.distill(settings(tmp_path_factory.mktemp("sets") / "set", evaluate_every=6))


@pytest.mark.parametrize("width", [8, 16], ids=["eager", "fused"])
def test_cut_anywhere_and_in_parts_it_gives_the_same_bytes(width, tmp_path):
    options = {"width": width, "deterministic": True, "zca": True}
    distill.distill(settings(tmp_path / "whole", "atom", **options))
    steps = iter([False] * 2 + [True])
    with pytest.raises(Interrupted):
        distill.distill(settings(tmp_path / "resumed", "atom", **options), should_stop=lambda: next(steps))
    distill.distill(settings(tmp_path / "resumed", "atom", **options), resume=True)
    parts = [tmp_path / str(index) for index in (1, 2, 3)]
    for index, part in enumerate(parts, start=1):
        distill.distill(settings(part, "atom", shard=f"{index}/3", **options))
    merged = merge(parts, tmp_path / "merged")
    files = [tmp_path / name / "synthetic.safetensors" for name in ("whole", "resumed", "merged")]
    assert len({file.read_bytes() for file in files}) == 1
    assert merged.factor == 2
    assert len(distill.load(tmp_path / "merged")) == 80
    assert (tmp_path / "merged" / "images.png").read_bytes() == (
        tmp_path / "whole" / "images.png"
    ).read_bytes()


def test_round_trip(artifact):
    found = distill.load(artifact.path)
    for each in (artifact, found):
        assert each.stored.shape == (20, 1, 8, 8)
        assert each.factor == 2
        assert len(each) == len(each.dataset()) == 80
        assert torch.equal(each.images, decode(artifact.stored, 2))
        assert each.labels.tolist() == [k for k in range(10) for _ in range(8)]
    assert found.card["factor"] == 2
    assert found.card["ipc"] == 2
    assert found.card["images"] == 20
    assert found.card["format_version"] == 2  # Versions that know of one image in one must not read it.
    assert repr(found).startswith("SyntheticSet(dm of digits, images (80, 1, 8, 8)")
    assert "2 x 2 smaller ones" in (found.path / "README.md").read_text()


def test_exports_hold_what_networks_are_trained_on(artifact, tmp_path):
    assert len(list(export(artifact, "folder", tmp_path / "png").glob("*/*.png"))) == 80
    with np.load(export(artifact, "npz", tmp_path / "set.npz")) as archive:
        assert np.array_equal(archive["images"], artifact.images.numpy())
        assert archive["pixels"].shape == (80, 8, 8, 1)
        assert archive["labels"].tolist() == artifact.labels.tolist()
    tensors = torch.load(export(artifact, "pt", tmp_path / "set.pt"), weights_only=True)
    assert torch.equal(tensors["images"], artifact.images)
    assert torch.equal(tensors["labels"], artifact.labels)


def test_random_images_can_be_kept_as_sets_with_a_factor_keep_theirs(tmp_path):
    module = load("random")
    images = module.distill(problem(), module.Config(factor=2), Session())
    assert torch.equal(images, initial_state(problem(), "real", 2).images)
    with pytest.raises(ValueError, match=r"factor must lie in 1\.\.8, not 9"):
        module.Config(factor=9)
    with pytest.raises(ValueError, match="factor 3 does not cut images of 8x8"):
        module.distill(problem(), module.Config(factor=3), Session())
    given = {"dataset": "digits", "method": "random", "ipc": 2, "device": "cpu"}
    config = module.Config(factor=2)
    made = distill.distill(DistillSettings(out=tmp_path / "set", method_config=config, **given))
    assert (len(made.stored), len(made.images), made.factor) == (20, 80, 2)


@pytest.mark.parametrize("zca", [False, True], ids=["plain", "zca"])
def test_pictures_of_stored_images_show_the_small_ones(zca):
    posed = problem()
    space = fit_preprocessing(posed.real.images, zca=zca)
    pixels = torch.arange(8).mul(32).view(8, 1, 1, 1).expand(8, 1, 8, 8).to(torch.uint8)  # each one grey
    shown = as_pictures(space, encode(space(pixels), 2), 2)
    assert shown.shape == (2, 1, 8, 8)
    if not zca:  # What whitening does not mix comes back as it was.
        assert torch.equal(shown, encode(pixels.float(), 2).to(torch.uint8))
        return
    small = space.pictures(decode(encode(space(pixels), 2), 2))
    for (row, column), image in zip(((0, 0), (0, 4), (4, 0), (4, 4)), small, strict=False):
        tile = shown[0, 0, row : row + 4, column : column + 4]
        assert torch.equal(tile, (F.avg_pool2d(image, 2)[0] * 255).round().to(torch.uint8))


def test_random_images_beside_it_are_as_many_as_are_stored(artifact):
    evaluator = Evaluator(artifact, artifact.real_dataset(), config=TrainingConfig(), seed=0, device=CPU)
    assert len(evaluator._training_set("random", 0)[0]) == 20
    assert len(evaluator._training_set("synthetic", 0)[0]) == 80


def test_on_the_way_it_is_judged_by_what_networks_are_trained_on(artifact):
    (line,) = (artifact.path / "evaluations.jsonl").read_text().splitlines()
    dataset = artifact.real_dataset()
    evaluator = Evaluator(
        artifact,
        dataset,
        config=TrainingConfig(epochs=100).suited_to("digits"),
        seed=derive_seed(derive_seed(0, "distill"), "milestones"),
        device=CPU,
        test=artifact.split_real(dataset)[1],
    )
    assert json.loads(line)["accuracy"] == evaluator.accuracy("synthetic", "convnet2", 0)


def with_card(artifact, folder, **changes):
    """A copy whose card has other entries; None takes one out."""
    shutil.copytree(artifact.path, folder)
    card = {**json.loads((folder / "card.json").read_text()), **changes}
    (folder / "card.json").write_text(json.dumps({k: v for k, v in card.items() if v is not None}))
    return folder


def test_cards_without_a_factor_are_of_sets_without_one(artifact, tmp_path):
    found = distill.load(with_card(artifact, tmp_path / "old", factor=None, format_version=1))
    assert found.factor == 1
    assert found.images is found.stored
    assert len(found) == 20


@pytest.mark.parametrize("factor", [0, -2, 3, 4, 2.5, 10**9, "many"])
def test_cards_with_a_factor_that_cannot_be_are_refused(artifact, tmp_path, factor):
    folder = with_card(artifact, tmp_path / "set", factor=factor)
    with pytest.raises(ValueError, match=r"card\.json is not a card.*factor") as error:
        distill.load(folder)
    assert "\n" not in str(error.value)


def test_sets_without_a_factor_keep_their_format(tmp_path):
    card = distill.distill(settings(tmp_path / "set", factor=1, batch=0)).card
    assert card["factor"] == 1
    assert card["format_version"] == 1
    assert "Multi-formation" not in (tmp_path / "set" / "README.md").read_text().split("## Loading")[0]


def older(folder, name="card.json"):
    """The card as versions wrote it that did not know of the settings."""
    card = json.loads((folder / name).read_text())
    del card["factor"], card["config"]["factor"], card["config"]["batch_synthetic"]
    (folder / name).write_text(json.dumps(card))


def test_finished_sets_of_earlier_versions_are_those_of_no_factor(tmp_path):
    made = distill.distill(settings(tmp_path / "set", factor=1, batch=0))
    older(made.path)
    found = distill.distill(settings(tmp_path / "set", factor=1, batch=0), resume=True)
    assert torch.equal(found.images, made.images)
    with pytest.raises(ValueError, match="factor, batch_synthetic differ"):
        distill.distill(settings(tmp_path / "set"), resume=True)


def test_shards_must_agree_on_the_factor(tmp_path):
    for index, factor in ((1, 1), (2, 1), (3, 2)):
        part = settings(tmp_path / str(index), factor=factor, batch=0, ipc=1, shard=f"{min(index, 2)}/2")
        distill.distill(part)
    with pytest.raises(ValueError, match="factor is 1 in the first and 2 in the second"):
        merge([tmp_path / "1", tmp_path / "3"], tmp_path / "set")
    older(tmp_path / "1", "shard.json")
    assert merge([tmp_path / "1", tmp_path / "2"], tmp_path / "set").factor == 1

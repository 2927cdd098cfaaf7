"""What every registered method must do, whichever it is."""

import importlib
from dataclasses import fields, is_dataclass, replace

import pytest
import torch

import distill
from distill.data import Split
from distill.merging import merge
from distill.methods import METHODS, load
from distill.methods.base import MethodConfig, Problem
from distill.preprocessing import fit_preprocessing
from distill.seeding import stream
from distill.session import Session
from distill.settings import DistillSettings

SMALL = {"iterations": 3, "width": 8, "batch_real": 8, "feature_epochs": 1}


def small_config(method):
    config = load(method).Config
    return config(**{k: v for k, v in SMALL.items() if k in {field.name for field in fields(config)}})


def run(method, out, **changes):
    settings = {"dataset": "digits", "method": method, "method_config": small_config(method), "ipc": 2}
    return distill.distill(DistillSettings(out=out, **{**settings, **changes}))


def run_on_noise(method, subset=None):
    """What `distill` gives for four classes of noise, or for those of `subset`."""
    pixels = torch.randint(256, (40, 1, 8, 8), generator=stream(0, "pixels")).to(torch.uint8)
    problem = Problem(
        real=Split(pixels, torch.arange(40) % 4),
        classes=("a", "b", "c", "d"),
        preprocessing=fit_preprocessing(pixels, zca=False),
        ipc=2,
        seed=0,
        device=torch.device("cpu"),
        subset=subset,
    )
    return load(method).distill(problem, small_config(method), Session())


@pytest.mark.parametrize("method", METHODS)
class TestEveryMethod:
    def test_gives_a_loadable_set_of_the_right_shape(self, method, tmp_path):
        run(method, tmp_path / "set")
        found = distill.load(tmp_path / "set")
        assert found.images.shape == (20, 1, 8, 8)
        assert found.labels.tolist() == [k for k in range(10) for _ in range(2)]
        assert bool(torch.isfinite(found.images).all())
        assert found.card["method"] == method

    def test_is_decided_by_its_seed(self, method, tmp_path):
        a, b, c = (run(method, tmp_path / n, seed=s).images for n, s in (("a", 4), ("b", 4), ("c", 5)))
        assert torch.equal(a, b)
        assert not torch.equal(a, c)

    @pytest.mark.parametrize("deterministic", [True, False], ids=["deterministic", "plain"])
    @pytest.mark.parametrize("parts", [2, 3])
    @pytest.mark.parametrize("width", [8, 16], ids=["eager", "fused"])
    def test_shards_make_what_one_process_makes(self, method, width, parts, deterministic, tmp_path):
        config = small_config(method)
        if not load(method).INDEPENDENT_CLASSES:
            with pytest.raises(ValueError, match="leave out shard"):
                run(method, tmp_path / "part", shard="1/2")
            return
        if hasattr(config, "width"):
            config = replace(config, width=width)
        options = {"method_config": config, "ipc": 1, "zca": True, "deterministic": deterministic}
        whole = run(method, tmp_path / "whole", **options)
        folders = [tmp_path / str(index) for index in range(1, parts + 1)]
        for index, folder in enumerate(folders, start=1):
            run(method, folder, shard=f"{index}/{parts}", **options)
        merged = merge(folders, tmp_path / "merged")
        assert torch.allclose(merged.images, whole.images, atol=1e-3)
        if deterministic:
            files = [tmp_path / name / "synthetic.safetensors" for name in ("whole", "merged")]
            assert files[0].read_bytes() == files[1].read_bytes()

    def test_leaves_global_random_state_alone(self, method, tmp_path):
        before = torch.get_rng_state()
        run(method, tmp_path / "set")
        assert torch.equal(torch.get_rng_state(), before)

    def test_has_a_frozen_keyword_only_config_with_documented_fields(self, method, tmp_path):
        config = load(method).Config
        assert issubclass(config, MethodConfig)
        assert is_dataclass(config)
        assert config.__dataclass_params__.frozen
        documentation = " ".join(kind.__doc__ or "" for kind in config.__mro__ if is_dataclass(kind))
        for field in fields(config):
            assert field.kw_only
            assert field.name in documentation
        with pytest.raises(AttributeError):
            config().seed = 1

    def test_refuses_more_images_than_a_class_has(self, method, tmp_path):
        with pytest.raises(ValueError, match="ipc 1000 is more than class"):
            run(method, tmp_path / "set", ipc=1000)
        assert not (tmp_path / "set" / "card.json").exists()

    def test_works_for_one_image_per_class(self, method, tmp_path):
        assert len(run(method, tmp_path / "set", ipc=1)) == 10

    def test_works_on_some_classes_alone_if_they_are_independent_else_refuses(self, method):
        subset = (2, 0)
        if load(method).INDEPENDENT_CLASSES:
            whole = run_on_noise(method).unflatten(0, (4, 2))
            part = run_on_noise(method, subset).unflatten(0, (2, 2))
            assert torch.allclose(part, whole[list(subset)], atol=1e-4)
        else:
            with pytest.raises(ValueError, match="leave out subset") as refusal:
                run_on_noise(method, subset)
            assert "\n" not in str(refusal.value)


def test_selected_images_are_real_ones(tmp_path):
    for method in ("random", "herding", "kcenter"):
        found = run(method, tmp_path / method, ipc=5)
        fit, _ = found.split_real(found.real_dataset())
        for label, image in zip(found.labels.tolist(), found.images, strict=True):
            space = found.preprocessing(fit.images[fit.labels == label])
            assert float((space - image).abs().amax(dim=(1, 2, 3)).min()) < 1e-6


def test_every_module_of_the_folder_is_registered():
    folder = importlib.import_module("distill.methods").__path__[0]
    from pathlib import Path

    modules = {path.stem for path in Path(folder).glob("*.py")} - {"base"}
    assert {name for name in modules if not name.startswith("_")} == set(METHODS)


def test_unknown_methods_are_refused():
    with pytest.raises(ValueError, match="allowed: atom, datadam"):
        load("magic")

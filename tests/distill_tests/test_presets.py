"""Presets: the files are sound, and what they bring follows from what is asked for."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from atom_nas.config import WithPreset, distill_settings, with_preset
from distill import methods, presets
from distill.presets import Case, resolve
from distill.settings import DistillSettings
from distill.sources import DATASETS, glance

PUBLISHED = ("cifar10", "cifar100", "tinyimagenet")


def case(**changes: Any) -> Case:
    return Case(**{"dataset": "cifar10", "method": "atom", "ipc": 10, "device": "cpu", **changes})


@pytest.fixture
def folder_of_many(tmp_path: Path) -> Path:
    """A folder of 30 classes, an image of 64 pixels each."""
    for k in range(30):
        folder = tmp_path / "images" / f"class{k}"
        folder.mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(folder / "a.png")
    return tmp_path / "images"


def values(name: str, **changes: Any) -> dict[str, Any]:
    return dict(resolve(name, case(**changes)).settings)


@pytest.mark.parametrize("name", presets.names())
def test_every_entry_makes_settings_that_are_allowed(name: str, tmp_path: Path) -> None:
    assert presets.summary(name)
    preset = presets._read(name)
    assert set(preset) <= {"summary", "common", "methods", "devices", "datasets", "budget"}
    assert set(preset.get("budget", {"cpu": 0, "cuda": 0})) == {"cpu", "cuda"}
    for dataset, entry in preset["datasets"].items():
        assert dataset in DATASETS
        assert {"side", "classes"} <= set(entry) <= {"side", "classes", "common", "ipc"}
        for ipc in entry.get("ipc", {1: {}}):
            for method in methods.METHODS:
                given = {"dataset": dataset, "method": method, "ipc": ipc, "preset": name, "out": tmp_path}
                settings = distill_settings(with_preset({**given, "device": "cpu"}).values)
                assert isinstance(settings, DistillSettings)
                assert settings.preset == name


@pytest.mark.parametrize("dataset", PUBLISHED)
@pytest.mark.parametrize("ipc", [1, 10, 50])
def test_the_papers_settings_are_there_for_what_they_published(dataset: str, ipc: int) -> None:
    found = resolve("paper", case(dataset=dataset, ipc=ipc))
    assert found.fallbacks == ()
    assert found.settings["iterations"] == 20000
    assert found.settings["zca"] == (dataset != "tinyimagenet")
    assert found.settings["depth"] == (4 if dataset == "tinyimagenet" else 3)
    assert found.settings["batch_real"] == 64
    assert values("paper", dataset=dataset, ipc=ipc, method="dm")["batch_real"] == 256


def test_what_a_device_has_is_its_own() -> None:
    here, there = (values("fast", ipc=50, device=device)["iterations"] for device in ("cpu", "cuda"))
    assert 0 < here < there


def test_an_unknown_dataset_gets_the_entry_of_the_one_most_like_it() -> None:
    like_ten = resolve("fast", case(dataset="folder:x", side=32, classes=12))
    assert like_ten.settings == values("fast", dataset="cifar10")
    assert like_ten.fallbacks == (
        "the preset 'fast' has no entry for folder:x: taking that of cifar10 (32 pixels wide, 10 classes)",
    )
    assert values("fast", dataset="folder:x", side=32, classes=90) == values("fast", dataset="cifar100")
    odd = resolve("paper", case(dataset="folder:x", side=48, classes=10))
    assert "zca" not in odd.settings
    assert odd.settings["iterations"] == 20000
    assert "what all datasets share" in odd.fallbacks[0]


def pixels(taken: dict[str, Any], side: int, classes: int, ipc: int) -> float:
    """Of all iterations, as often as they pass through the network: of a matching method."""
    synthetic = 3 * ipc * taken.get("factor", 1) ** 2
    return float(taken["iterations"]) * side**2 * classes * (taken["batch_real"] + synthetic)


NINE_MINUTES = pixels({"iterations": 900, "batch_real": 64}, 32, 10, 50)
"""CIFAR-10's at 50 images per class, which take as long on two cores."""


def filled(**given: Any) -> WithPreset:
    return with_preset({"dataset": "cifar10", "preset": "fast", "device": "cpu", **given})


@pytest.mark.parametrize("ipc", [1, 10, 50])
def test_iterations_are_as_many_as_fit_into_the_time(ipc: int) -> None:
    ten = filled(ipc=ipc)
    assert ten.fallbacks == ()
    assert 0.75 * NINE_MINUTES < pixels(ten.taken, 32, 10, ipc) <= NINE_MINUTES
    for dataset, side, classes in (("cifar100", 32, 100), ("tinyimagenet", 64, 200)):
        large = filled(dataset=dataset, ipc=ipc)
        # A block deeper at 64 pixels, and a last iteration that does not fit.
        assert 0.85 * NINE_MINUTES < pixels(large.taken, side, classes, ipc) < 1.01 * NINE_MINUTES
        count = large.taken["iterations"]
        assert large.values["iterations"] == count
        (said,) = large.fallbacks
        assert said.startswith(f"the preset 'fast' has time for {count} of 1,000 iterations of atom here; ")


def test_what_is_given_counts_in_the_time_it_takes(folder_of_many: Path) -> None:
    folder = f"folder:{folder_of_many}"
    plain = filled(dataset=folder, ipc=50).taken["iterations"]
    for given, ratio in (
        ({"batch_real": 1024}, (64 + 150) / (1024 + 150)),
        ({"factor": 2}, (64 + 150) / (64 + 600)),
        ({"batch_synthetic": 10}, (64 + 150) / (64 + 30)),
        ({"width": 64}, 3.9),
        ({"image_size": 32}, 4.2),
    ):
        found = filled(dataset=folder, ipc=50, **given).taken["iterations"]
        assert found == pytest.approx(plain * ratio, rel=0.05), given
    assert filled(batch_real=16).fallbacks == ()


def test_methods_that_train_networks_run_fewer_iterations() -> None:
    for method in ("dc", "dsa", "cafe"):
        for ipc in (1, 10, 50):
            found = filled(method=method, ipc=ipc)
            assert 10 < found.taken["iterations"] < 100
            assert f"iterations of {method} here" in found.fallbacks[0]
        few = filled(method=method, ipc=10).taken["iterations"]
        assert filled(method=method, ipc=10, pixel_steps=1).taken["iterations"] > 4 * few
        assert filled(method=method, ipc=10, network_epochs="auto").taken["iterations"] < few / 2


def test_where_there_is_no_time_for_an_iteration_one_is_run_and_it_is_said(folder_of_many: Path) -> None:
    huge = filled(dataset=f"folder:{folder_of_many}", image_size=512, ipc=50, method="dc")
    assert huge.taken["iterations"] == 1
    assert "has no time for one of 1,000 iterations of dc here" in huge.fallbacks[-1]


def test_time_does_not_matter_where_it_is_unknown_unlimited_or_given(folder_of_many: Path) -> None:
    folder = f"folder:{folder_of_many}"
    assert filled(dataset="mnist").taken["iterations"] == 1000
    assert filled(dataset=folder, preset="paper").taken["iterations"] == 20000
    assert filled(dataset=folder).taken["iterations"] < 1000
    for own in ({"iterations": 900}, {"method": "random"}):
        found = filled(dataset=folder, **own)
        assert "iterations" not in found.taken
        assert not [each for each in found.fallbacks if "iterations" in each]


def test_other_numbers_of_images_take_the_nearest() -> None:
    found = resolve("fast", case(ipc=20))
    assert found.settings == values("fast", ipc=10)
    assert found.fallbacks == ("the preset 'fast' has nothing for 20 images per class: taking that for 10",)
    assert values("fast", ipc=30) == values("fast", ipc=50)


def test_what_is_given_counts_for_more(tmp_path: Path) -> None:
    given = {"dataset": "cifar10", "preset": "paper", "iterations": 5, "zca": False, "device": "cpu"}
    found = with_preset(given)
    assert (found.values["iterations"], found.values["zca"]) == (5, False)
    assert "iterations" not in found.taken
    assert found.taken["learning_rate"] == 1.0
    plain = with_preset({"dataset": "cifar10"})
    assert (plain.values, plain.taken, plain.fallbacks) == ({"dataset": "cifar10"}, {}, ())


def test_settings_that_a_method_does_not_have_are_left_out() -> None:
    taken = with_preset({"dataset": "cifar10", "method": "random", "preset": "paper", "device": "cpu"}).taken
    assert taken == {"zca": True}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"preset": "papers"}, "paper"),
        ({"preset": "paper", "dataset": None}, "no dataset given"),
        ({"preset": "paper", "method": "atoms"}, "atom"),
        ({"preset": "paper", "ipc": "many"}, "ipc"),
        ({"preset": "paper", "dataset": "folder:/no/such/folder"}, "no folder"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_clear_error(given: dict[str, Any], complaint: str) -> None:
    asked = {"dataset": "cifar10", "device": "cpu", **given}
    with pytest.raises(ValueError, match=complaint):
        with_preset({name: value for name, value in asked.items() if value is not None})


def test_a_glance_at_a_folder_reads_no_pixels(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for k in range(3):
            folder = tmp_path / split / f"class{k}"
            folder.mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(folder / "a.png")
    assert glance(f"folder:{tmp_path}") == (32, 3)
    assert glance(f"folder:{tmp_path}", image_size=16) == (16, 3)
    Image.new("RGB", (32, 20)).save(tmp_path / "train" / "class0" / "a.png")
    assert glance(f"folder:{tmp_path}") == (None, 3)
    (tmp_path / "train" / "class0" / "a.png").write_bytes(b"no image")
    assert glance(f"folder:{tmp_path}") == (None, 3)
    assert glance("cifar10") == (None, None)

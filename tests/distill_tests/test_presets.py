"""Presets: the files are sound, and what they bring follows from what is asked for."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from atom_nas.config import distill_settings, with_preset
from distill import methods, presets
from distill.presets import Case, Resolved, resolve
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
    assert set(preset) <= {"summary", "common", "methods", "devices", "datasets", "budget", "costs"}
    assert set(preset.get("costs", {})) <= set(methods.METHODS)
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
    like_ten = resolve("fast", case(dataset="folder:x", side=32, classes=9))
    assert like_ten.settings == values("fast", dataset="cifar10")
    assert like_ten.fallbacks == (
        "the preset 'fast' has no entry for folder:x: taking that of cifar10 (32 pixels wide, 10 classes)",
    )
    like_hundred = values("fast", dataset="folder:x", side=32, classes=90, ipc=50)
    assert like_hundred["iterations"] > values("fast", dataset="cifar100", ipc=50)["iterations"]
    assert like_hundred["factor"] == 1
    odd = resolve("paper", case(dataset="folder:x", side=48, classes=10))
    assert "zca" not in odd.settings
    assert odd.settings["iterations"] == 20000
    assert "what all datasets share" in odd.fallbacks[0]


def test_iterations_are_as_many_as_fit_into_the_time() -> None:
    def work(found: Resolved, side: int, classes: int, ipc: int) -> float:
        synthetic = 3 * ipc * found.settings.get("factor", 1) ** 2
        return float(found.settings["iterations"]) * side**2 * classes * (64 + synthetic)

    budget = presets._read("fast")["budget"]["cpu"]
    for ipc in (1, 10, 50):
        ten = resolve("fast", case(ipc=ipc))
        assert ten.shortened is None
        assert 0.7 * budget < work(ten, 32, 10, ipc) <= budget
        for dataset, side, classes in (("cifar100", 32, 100), ("tinyimagenet", 64, 200)):
            large = resolve("fast", case(dataset=dataset, ipc=ipc))
            assert 0.9 * budget < work(large, side, classes, ipc) <= budget
            assert large.shortened is not None
            assert f"has time for {large.settings['iterations']} of 1,000 iterations" in large.shortened
            alike = resolve("fast", case(dataset="folder:x", side=side, classes=classes, ipc=ipc))
            assert (alike.settings, alike.shortened) == (large.settings, large.shortened)
    wide = resolve("fast", case(dataset="folder:x", side=128, classes=5))
    assert 0.9 * budget < work(wide, 128, 5, 10) <= budget
    huge = resolve("fast", case(dataset="folder:x", side=512, classes=5000))
    assert huge.settings["iterations"] == 1
    assert resolve("paper", case(dataset="folder:x", side=512, classes=5000)).shortened is None


def test_where_images_are_unknown_or_few_all_iterations_are_run() -> None:
    assert values("fast", dataset="mnist")["iterations"] == 1000
    assert values("fast", dataset="folder:x", side=32, classes=2) == values("fast")


def test_methods_that_take_longer_run_fewer() -> None:
    budget = presets._read("fast")
    atom = resolve("fast", case(dataset="folder:x", side=32, classes=40))
    for method, cost in budget["costs"].items():
        found = resolve("fast", case(dataset="folder:x", side=32, classes=40, method=method))
        assert found.settings["iterations"] * cost == pytest.approx(atom.settings["iterations"], rel=0.3)


def test_of_fewer_iterations_is_told_only_where_they_are_taken(folder_of_many: Path) -> None:
    given = {"dataset": f"folder:{folder_of_many}", "preset": "fast", "device": "cpu"}
    taken = with_preset(given)
    assert taken.taken["iterations"] < 1000
    assert "more" in taken.fallbacks[-1]
    for own in ({"iterations": 20}, {"method": "random"}):
        assert not [each for each in with_preset({**given, **own}).fallbacks if "has time for" in each]


def test_other_numbers_of_images_take_the_nearest() -> None:
    found = resolve("fast", case(ipc=20))
    assert found.settings == values("fast", ipc=10) | {"iterations": found.settings["iterations"]}
    assert found.settings["iterations"] < 1000
    assert found.fallbacks == ("the preset 'fast' has nothing for 20 images per class: taking that for 10",)
    assert values("fast", ipc=30) == values("fast", ipc=50)


def test_what_is_given_counts_for_more(tmp_path: Path) -> None:
    given = {"dataset": "cifar10", "preset": "paper", "iterations": 5, "zca": False, "device": "cpu"}
    filled = with_preset(given)
    assert (filled.values["iterations"], filled.values["zca"]) == (5, False)
    assert "iterations" not in filled.taken
    assert filled.taken["learning_rate"] == 1.0
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

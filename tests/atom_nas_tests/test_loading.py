"""Loading what a search kept: networks with and without weights, and files that are none of its own."""

import json
import os
import shutil
import signal
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from trial_helpers import best, stored

import atom_nas
import distill
from atom_nas.search import SearchSettings, run_search
from distill.settings import DistillSettings
from distill.sources import load_dataset
from reports.confirmed import FOLDER, weights_file

Ran = list[tuple[str, str]]
CPU = torch.device("cpu")


@pytest.fixture
def settings(quick: SearchSettings) -> SearchSettings:
    narrow = {"space_options": {"width": [32], "depth": [1]}, "validation_images": None, "seed": 0}
    return replace(quick, reference="none", confirm=2, confirm_epochs=3, **narrow)


@pytest.mark.usefixtures("ran")
def test_networks_without_weights(settings: SearchSettings) -> None:
    run_search(replace(settings, confirm=None))
    ranked = best(settings.out)[:4]
    for rank, each in enumerate(ranked, start=1):
        model = atom_nas.load_architecture(settings.out, rank, weights=False)
        assert model.card["architecture"] == each.architecture
        assert model.network.training
        assert model.network(model.preprocessing(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))).shape == (2, 10)
    torch.manual_seed(1)
    name = ranked[3].architecture
    first, second = (
        atom_nas.load_architecture(settings.out, architecture=name, weights=False) for _ in range(2)
    )
    assert not torch.equal(*(next(model.network.parameters()) for model in (first, second)))
    with pytest.raises(ValueError, match="no rank 5: it has 4 ranked"):
        atom_nas.load_architecture(settings.out, 5, weights=False)
    with pytest.raises(ValueError, match="no ranked architecture 'w32'"):
        atom_nas.load_architecture(settings.out, architecture="w32", weights=False)
    with pytest.raises(ValueError, match=r"holds no confirmed architecture.*--resume --confirm 3"):
        atom_nas.load_architecture(settings.out)
    record = json.loads((settings.out / "run.json").read_text())
    record["settings"]["synthetic"] = "nowhere"
    (settings.out / "run.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="searched with the synthetic set nowhere"):
        atom_nas.load_architecture(settings.out, weights=False)


@pytest.mark.usefixtures("ran")
def test_a_trained_network_predicts_files_and_pixels(settings: SearchSettings, tmp_path: Path) -> None:
    run_search(settings)
    model = atom_nas.load_architecture(settings.out)
    test = load_dataset("digits").test
    images, labels = test.images[:40], test.labels[:40]
    with torch.no_grad():
        expected = model.network(model.preprocessing(images)).softmax(1)
    found = model.probabilities(images)
    assert torch.allclose(found, expected)
    assert model.predict(images) == [model.classes[k] for k in expected.argmax(1)]
    assert model.predict(images.numpy()) == model.predict(images)
    files = []
    for number, pixels in enumerate(images):
        files.append(tmp_path / f"{number}.png")
        large = Image.fromarray(pixels[0].numpy()).resize((24, 24), Image.Resampling.NEAREST)
        large.crop((-6, 0, 30, 24)).save(files[-1])  # the middle square is the digit
    agree = sum(one == other for one, other in zip(model.predict(files), model.predict(images), strict=True))
    assert agree >= 36
    assert model.predict(str(files[0])) == model.predict(files[:1])
    with Image.open(files[0]) as opened:
        assert torch.equal(model.probabilities(opened), model.probabilities(files[0]))
        assert model.predict([opened, files[1]]) == model.predict(files[:2])
        assert opened.size == (36, 24), "still open, as it was"
    for _ in range(20):
        with Image.open(files[0]) as late:  # its pixels are not read yet
            assert model.predict([late] * 8) == model.predict(files[:1]) * 8
    array = images.numpy().copy()
    array.setflags(write=False)  # as those that NumPy makes of Pillow's images
    assert torch.equal(model.probabilities(array[::-1]), model.probabilities(images.flip(0)))
    with Image.open(files[0]) as closed:
        pass
    with pytest.raises(ValueError, match=r"cannot read 2 of 2 images: .*\(it is closed\)"):
        model.predict([closed, closed])
    with pytest.raises(ValueError, match="rank must be a whole number from 1, not '1'"):
        atom_nas.load_architecture(settings.out, rank="1")  # type: ignore[arg-type]
    assert not model.network.training
    model.network.train()
    assert model.predict(files[:1]) == model.predict(files[:1])
    assert model.network.training
    assert labels.shape == (40,)


@pytest.mark.usefixtures("ran")
def test_pixels_that_would_come_out_wrong_are_refused(settings: SearchSettings, tmp_path: Path) -> None:
    run_search(replace(settings, confirm=1, confirm_epochs=1))
    model = atom_nas.load_architecture(settings.out)
    pixels = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    Image.new("RGB", (8, 8), "gray").save(tmp_path / "grey.png")
    assert torch.allclose(model.probabilities(tmp_path / "grey.png"), model.probabilities(pixels[:1] + 128))
    wrong: list[tuple[Any, str]] = [
        (pixels / 255, "pixels are uint8 from 0 to 255, not torch.float32"),
        (pixels.expand(-1, 3, -1, -1), r"images have the shape \(N, 1, H, W\), not \(2, 3, 8, 8\)"),
        (pixels[0], r"not \(1, 8, 8\)"),
        (torch.zeros(2, 1, 9, 9, dtype=torch.uint8), "images are 9x9, and the network takes 8x8"),
        (
            [tmp_path / "grey.png", tmp_path / "red.png"],
            r"red\.png is in colour, and the network was trained on",
        ),
        (pixels.permute(0, 2, 3, 1), r"images have the shape \(N, 1, H, W\), not \(2, 8, 8, 1\)"),
        (tmp_path / "absent.png", "there is no image .*absent.png$"),
        ([], "no image was given"),
        (
            [Image.new("RGB", (9, 9), "red")],
            "Image image mode=RGB size=9x9 .* is in colour, and the network was",
        ),
        (Image.new("L", (0, 0)), r"cannot read the image .* \(it has no pixels\)"),
        (np.zeros((2, 1, 8, 8)), r"pixels are uint8 \(N, C, H, W\), not float64"),
        (np.array(["one.png"], dtype=object), "not object"),
        (Image.new("F", (8, 8)), "cannot read the image .*mode=F .*floating-point pixels"),
        ([pixels], "give image files, images of Pillow, or uint8 pixels .*, not Tensor"),
        (None, "give image files, .*, not NoneType"),
    ]
    for images, message in wrong:
        with pytest.raises(ValueError, match=message):
            model.predict(images)
    with pytest.raises(ValueError, match="a torch tensor, not ndarray"):
        model.preprocessing(pixels.numpy())  # type: ignore[arg-type]


def test_deep_greys_are_read_as_those_trained_on_were(tmp_path: Path) -> None:
    """Whatever files stand beside them, which a dataset's images are scaled by."""
    root, numbers = tmp_path / "deep", np.random.default_rng(0)
    for name, low in (("dim", 1_000), ("bright", 30_000)):
        for number in range(10):
            file = root / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = numbers.integers(low, low + 1_000, (8, 8)).astype(np.uint16)
            Image.fromarray(pixels).save(file)
    options: dict[str, Any] = {"samples": 1, "epochs": 1, "reference": "none", "confirm": 1, "workers": 1}
    with pytest.warns(UserWarning, match="taken for 16 bits"):
        distill.distill(
            DistillSettings(dataset=f"folder:{root}", method="random", ipc=2, out=tmp_path / "set")
        )
    with pytest.warns(UserWarning, match="taken for 16 bits"):
        run_search(
            SearchSettings(synthetic=tmp_path / "set", out=tmp_path / "run", confirm_epochs=3, **options)
        )
    model = atom_nas.load_architecture(tmp_path / "run")
    files = sorted((root / "dim").iterdir())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone, together = model.probabilities(files[:1]), model.probabilities([*files, root / "bright/0.png"])
    assert torch.allclose(alone[0], together[0])
    card = {**model.card, "grey_bits": 8}
    with pytest.raises(
        ValueError, match=r"0\.png \(pixels of more than 8 bits are brighter than those trained"
    ):
        replace(model, card=card).predict(files[:1])


@pytest.mark.usefixtures("ran")
def test_wrong_requests_are_refused(settings: SearchSettings, tmp_path: Path) -> None:
    run_search(settings)
    run, names = settings.out, [each.architecture for each in stored(settings.out, "confirm")]
    requests: list[tuple[dict[str, Any], str]] = [
        ({"rank": 3}, "no rank 3: it has 2 confirmed"),
        ({"rank": 0}, "no rank 0"),
        ({"rank": 1, "architecture": names[0]}, "not both"),
        ({"architecture": names[0][:-1]}, f"nearest of 2: '{names[0]}'.*weights=False builds it"),
    ]
    for request, message in requests:
        with pytest.raises(ValueError, match=message):
            atom_nas.load_architecture(run, **request)
    with pytest.raises(ValueError, match="there is no run"):
        atom_nas.load_architecture(tmp_path / "none")


def change_card(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.usefixtures("ran")
def test_damaged_files_are_refused(settings: SearchSettings) -> None:
    run_search(replace(settings, confirm=1))
    run, name = settings.out, stored(settings.out, "confirm")[0].architecture
    weights = run / weights_file(name)
    card, whole = weights.with_suffix(".json"), weights.read_bytes()
    text = card.read_text()
    weights.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"changed or damaged.*--resume. trains it again"):
        atom_nas.load_architecture(run)
    weights.unlink()
    with pytest.raises(ValueError, match="is missing: the confirmed architecture is incomplete"):
        atom_nas.load_architecture(run)
    weights.write_bytes(whole)
    for changes, message in (
        ({"format_version": 2}, "upgrade"),
        ({"test_accuracy": 1.5}, "test_accuracy"),
        ({"architecture": "w64-d1-none-relu-avg"}, "card of another architecture"),
        ({"space": {"name": "convnt", "options": {}}}, "did you mean 'convnet'"),
        ({"classes": ["a", "b"]}, "does not hold the weights"),
        ({"image_shape": [1, 200_000, 200_000]}, "does not hold the weights"),
        ({"space": {"name": "nasbench201", "options": {"cells": 10**6}}}, "from 1 to 1024"),
    ):
        change_card(card, **changes)
        with pytest.raises(ValueError, match=message):
            atom_nas.load_architecture(run)
        card.write_text(text)
    card.write_text("{")
    with pytest.raises(ValueError, match="no card of a confirmed architecture"):
        atom_nas.load_architecture(run)


@pytest.fixture
def in_time() -> Iterator[None]:
    """What waits for ever fails."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(240)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("ran", "in_time")
def test_what_is_no_file_is_not_waited_for(settings: SearchSettings, tmp_path: Path) -> None:
    run_search(replace(settings, confirm=1))
    run = settings.out
    weights = run / weights_file(stored(run, "confirm")[0].architecture)
    os.mkfifo(run / FOLDER / "stray.json")
    (run / FOLDER / "zero.json").symlink_to("/dev/zero")
    (run / FOLDER / "folder.json").mkdir()
    assert atom_nas.load_architecture(run).card["position"] >= 0
    for path, message in (
        (weights.with_suffix(".json"), "is not a regular file"),
        (weights, "is missing: the confirmed architecture is incomplete"),
    ):
        shutil.move(path, tmp_path / "kept")
        os.mkfifo(path)
        with pytest.raises(ValueError, match=message):
            atom_nas.load_architecture(run)
        assert run_search(replace(settings, confirm=1, resume=True)).confirmed == 1  # trained again
        assert path.is_file()


@pytest.mark.usefixtures("ran")
def test_strays_among_the_cards_are_passed_over(settings: SearchSettings) -> None:
    run_search(settings)
    folder = settings.out / FOLDER
    whole = atom_nas.load_architecture(settings.out, rank=2).card
    card = next(folder.glob("*.json"))
    shutil.copy(card, folder / f"{card.stem} copy.json")
    for number, text in enumerate(("", "{", "[]", "null", '{"notes": "mine"}', "\udcff", "[" * 100_000)):
        (folder / f"stray{number}.json").write_text(text, errors="surrogateescape")
    assert atom_nas.load_architecture(settings.out, rank=2).card == whole
    run_search(replace(settings, resume=True))


@pytest.mark.usefixtures("ran", "in_time")
def test_files_of_any_size_are_not_read(settings: SearchSettings) -> None:
    run_search(replace(settings, confirm=1))
    run = settings.out
    weights = run / weights_file(stored(run, "confirm")[0].architecture)
    card = weights.with_suffix(".json")
    text = card.read_text()
    os.truncate(card, 2**40)
    with pytest.raises(ValueError, match=r"has 1,099,511,627,776 bytes, more than the"):
        atom_nas.load_architecture(run)
    card.write_text(text)
    os.truncate(weights, 2**40)
    with pytest.raises(ValueError, match=r"larger than what .*json describes"):
        atom_nas.load_architecture(run)


def places(value: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a JSON value, at any depth."""
    if path:
        yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, *path, key)


@pytest.mark.usefixtures("ran", "in_time")
@pytest.mark.parametrize(
    ("space", "options"), [("convnet", {"width": [32]}), ("nasbench201", {"cells": 1, "channels": 4})]
)
def test_malformed_cards_raise_what_is_documented(
    settings: SearchSettings, space: str, options: dict[str, Any]
) -> None:
    run_search(replace(settings, space=space, space_options=options, samples=1, confirm=1, confirm_epochs=1))
    card = next((settings.out / FOLDER).glob("*.json"))
    text = card.read_text()
    for path in places(json.loads(text)):
        if path[0] in ("environment", "recipe", "dataset") and len(path) > 1:
            continue
        for wrong in (None, True, -1, 0.5, "x\ny", "", [], ["x", 3], {}, {"a": None}):
            whole = json.loads(text)
            part = whole
            for key in path[:-1]:
                part = part[key]
            part[path[-1]] = wrong
            card.write_text(json.dumps(whole))
            try:
                atom_nas.load_architecture(settings.out)
            except ValueError as error:
                assert len(str(error).splitlines()) == 1, (path, wrong)  # noqa: PT017


@pytest.mark.usefixtures("ran")
def test_malformed_records_raise_what_is_documented(settings: SearchSettings) -> None:
    run_search(replace(settings, confirm=None))
    file = settings.out / "run.json"
    record = json.loads(file.read_text())
    for name in ("score", "space", "dataset", "synthetic", "settings"):
        for wrong in (None, 3, "x\ny", [], {"name": 3, "synthetic": 3}):
            file.write_text(json.dumps(record | {name: wrong}))
            for weights in (True, False):
                with pytest.raises(ValueError, match=r".") as caught:
                    atom_nas.load_architecture(settings.out, weights=weights)
                assert len(str(caught.value).splitlines()) == 1


def test_a_synthetic_set_is_told_for_what_it_is(digits_set: Path) -> None:
    with pytest.raises(ValueError, match="is a synthetic set, not a run"):
        atom_nas.load_architecture(digits_set)

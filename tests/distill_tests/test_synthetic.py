"""The artifact on disk: what was saved is what is loaded, and nothing else is accepted."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

import distill
from distill.export import export
from distill.methods import load as load_method
from distill.settings import DistillSettings
from distill.training import evaluate


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    out = tmp_path_factory.mktemp("sets") / "zca"
    config = load_method("atom").Config(iterations=12, width=8, batch_real=8)
    settings = DistillSettings(dataset="digits", out=out, method_config=config, ipc=3, zca=True)
    return distill.distill(settings)


def copied(artifact, tmp_path, name="copy"):
    import shutil

    return shutil.copytree(artifact.path, tmp_path / name)


def test_round_trip(artifact):
    found = distill.load(artifact.path)
    assert torch.equal(found.images, artifact.images)
    assert found.images.dtype == torch.float32
    assert found.labels.tolist() == [k for k in range(10) for _ in range(3)]
    assert found.classes == tuple("0123456789")
    image, label = found.dataset()[4]
    assert torch.equal(image, found.images[4])
    assert int(label) == 1


def test_the_loaded_preprocessing_is_the_one_distilled_with(artifact):
    found = distill.load(artifact.path)
    dataset = found.real_dataset()
    pixels = dataset.train.images[:20]
    assert torch.equal(found.preprocessing(pixels), artifact.preprocessing(pixels))
    assert found.preprocessing.whitening is not None


def test_the_card_says_what_was_done(artifact):
    card = json.loads((artifact.path / "card.json").read_text())
    assert card["format_version"] == 1
    assert card["method"] == "atom"
    assert card["config"]["iterations"] == 12
    assert card["dataset"]["classes"] == list("0123456789")
    assert card["dataset"]["fingerprint"].startswith("sha256:")
    assert torch.__version__.startswith(card["environment"]["torch"])
    assert card["wall_seconds"] > 0
    assert card["peak_memory_mb"] > 50
    assert card["loss_curve"][-1]["iteration"] == 12
    log = [json.loads(line) for line in (artifact.path / "log.jsonl").read_text().splitlines()]
    assert [point["iteration"] for point in log] == [10, 12]
    assert log == card["loss_curve"]


def test_the_text_form_fits_a_line(artifact):
    assert repr(artifact).startswith("SyntheticSet(atom of digits, images (30, 1, 8, 8)")


def test_split_real_is_the_split_distillation_used(artifact):
    dataset = artifact.real_dataset()
    fit, validation = artifact.split_real(dataset)
    again = dataset.carve_validation(0.1, 0)
    assert torch.equal(validation.images, again[1].images)
    assert len(fit) + len(validation) == len(dataset.train)


def test_pictures_show_classes_as_rows(artifact):
    sheet = Image.open(artifact.path / "images.png")
    cell = 8 * 8 + 2
    assert sheet.size == (3 * cell, 10 * cell)
    picture = np.asarray(sheet)[cell + 1 : 2 * cell - 1 : 8, 1 : cell - 1 : 8, 0]
    assert np.array_equal(picture, artifact.pictures()[3, 0].numpy())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "card.json").unlink(), "no synthetic set"),
        (lambda f: (f / "card.json").write_text("{"), "not valid JSON"),
        (lambda f: (f / "card.json").write_text(f'{{"seed": {"9" * 5000}}}'), "card.json is not valid JSON"),
        (lambda f: os.truncate(f / "card.json", 2**26 + 1), "more than the 67,108,864 that it may have"),
        (lambda f: (f / "card.json").write_text("[]"), "not a card"),
        (lambda f: (f / "card.json").write_text('{"format_version": 99}'), "format 99"),
        (lambda f: (f / "card.json").write_text('{"format_version": 1}'), "not a card.*dataset"),
        (lambda f: (f / "synthetic.safetensors").unlink(), "missing"),
        (lambda f: (f / "synthetic.safetensors").write_bytes(b"x" * 100), "changed or damaged"),
        (lambda f: (f / "whitening.safetensors").unlink(), "missing"),
    ],
)
def test_damaged_and_foreign_artifacts_are_refused(artifact, tmp_path, damage, message):
    folder = copied(artifact, tmp_path)
    damage(folder)
    with pytest.raises(ValueError, match=message):
        distill.load(folder)


def with_card(folder, *path, to):
    """The artifact with the entry of its card at `path` set to `to`."""
    card = json.loads((folder / "card.json").read_text())
    entry = card
    for name in path[:-1]:
        entry = entry[name]
    entry[path[-1]] = to
    (folder / "card.json").write_text(json.dumps(card))
    return folder


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("path", "to"),
    [
        *((("wall_seconds",), value) for value in (-1.0, NAN, INF)),
        *((("cpu_seconds",), value) for value in (-1.0, NAN, INF)),
        *((("config", "iterations"), value) for value in ("many", 0, 1.5, [1], True)),
        *((("dataset", "validation_fraction"), value) for value in (1.5, 1.0, -0.1, NAN)),
        (("dataset", "image_shape"), [2, 8, 8]),
        (("dataset", "classes"), ["\ud800", *"123456789"]),
        (("dataset", "name"), "folder:\udcff"),
        (("preprocessing", "std"), [INF]),
        (("preprocessing", "std"), [1e39]),
        (("preprocessing", "mean"), [NAN]),
        (("ipc",), 4),
        (("ipc",), 10**400),
    ],
    ids=lambda value: str(value)[:40],
)
def test_cards_that_would_fail_later_are_refused_in_a_line_that_names_the_file(artifact, tmp_path, path, to):
    folder = with_card(copied(artifact, tmp_path), *path, to=to)
    with pytest.raises(ValueError, match=r"\.(json|safetensors)") as caught:
        distill.load(folder)
    assert type(caught.value) is ValueError
    assert "\n" not in str(caught.value)


def test_class_names_of_a_card_are_compared_with_the_dataset(artifact, tmp_path):
    folder = with_card(copied(artifact, tmp_path), "dataset", "classes", to=list("9876543210"))
    with pytest.raises(ValueError, match=r"card.json does not name the 10 classes of digits"):
        distill.load(folder).real_dataset()
    folder = with_card(folder, "dataset", "classes", to=[*"0123456789", "ten", "eleven"])
    with pytest.raises(
        ValueError, match=r"0 to 3 images a class, and card.json says 3 of each of 12 classes"
    ):
        distill.load(folder)


def test_folders_without_a_card_are_told_for_what_they_are(tmp_path):
    for name in ("other", "begun", "search"):
        (tmp_path / name).mkdir()
    (tmp_path / "begun" / "checkpoint.safetensors").touch()
    (tmp_path / "search" / "run.json").touch()
    with pytest.raises(ValueError, match=r"distill --out' wrote$"):
        distill.load(tmp_path / "other")
    with pytest.raises(ValueError, match=r"go on with --resume \(atom-nas distill"):
        distill.load(tmp_path / "begun")
    with pytest.raises(ValueError, match="run of a search: name the set"):
        distill.load(tmp_path / "search")
    with pytest.raises(ValueError, match=r"card\.json there\); it is a file: name its folder, "):
        distill.load(tmp_path / "search" / "run.json")


def rewhitened(folder, **tensors):
    """The artifact with another whitening and the digest that goes with it."""
    from hashlib import sha256

    from safetensors.torch import load_file, save_file

    path = folder / "whitening.safetensors"
    save_file({**load_file(path), **tensors}, path)
    return with_card(folder, "preprocessing", "zca", "sha256", to=sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"matrix": torch.eye(64, dtype=torch.float64)}, "float32"),
        ({"mean": torch.zeros(64, dtype=torch.int64)}, "float32"),
        ({"matrix": torch.eye(64) * NAN}, "finite"),
        ({"mean": torch.full((64,), INF)}, "finite"),
        ({"matrix": torch.ones(64, 64).triu()}, "not symmetric"),
    ],
)
def test_whitening_that_is_none_is_refused(artifact, tmp_path, tensors, message):
    with pytest.raises(ValueError, match=rf"whitening\.safetensors .*{message}"):
        distill.load(rewhitened(copied(artifact, tmp_path), **tensors))


def test_a_whitening_that_cannot_be_undone_gives_no_pictures(artifact, tmp_path):
    found = distill.load(rewhitened(copied(artifact, tmp_path), matrix=torch.zeros(64, 64)))
    with pytest.raises(ValueError, match=r"whitening\.safetensors holds a singular matrix"):
        found.pictures()


def test_homes_in_the_card_are_found(artifact, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "photos").mkdir()
    folder = with_card(copied(artifact, tmp_path), "dataset", "name", to="folder:~/photos")
    with pytest.raises(ValueError, match="no class folder with images"):
        distill.load(folder).real_dataset()
    (tmp_path / "photos").rmdir()
    with pytest.raises(ValueError, match="not there any more"):
        distill.load(folder).real_dataset()


def test_data_of_another_size_is_refused_as_other_data(artifact, tmp_path):
    folder = with_card(copied(artifact, tmp_path), "dataset", "image_size", to=16)
    with pytest.raises(ValueError, match=r"digits is not the data that .* was distilled from") as refused:
        distill.load(with_card(folder, "dataset", "fingerprint", to="sha256:0")).real_dataset(name="digits")
    assert "image_size" not in str(refused.value)


def rewritten(folder, **tensors):
    """The artifact with other tensors and the digest that goes with them."""
    import hashlib

    from safetensors.torch import load_file, save_file

    path = folder / "synthetic.safetensors"
    save_file({**load_file(path), **tensors}, path)
    card = json.loads((folder / "card.json").read_text())
    card["images_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"labels": torch.full((30,), 50)}, "labels outside"),
        ({"labels": torch.zeros(30)}, "int64 label"),
        ({"labels": torch.zeros(7, dtype=torch.int64)}, "int64 label"),
        ({"labels": torch.arange(30) // 4}, "0 to 4 images a class"),
        ({"images": torch.full((30, 1, 8, 8), float("nan"))}, "finite"),
        ({"images": torch.zeros(30, 3, 8, 8)}, "does not hold the images"),
    ],
)
def test_tensors_that_cannot_be_a_set_are_refused(artifact, tmp_path, tensors, message):
    folder = copied(artifact, tmp_path)
    rewritten(folder, **tensors)
    with pytest.raises(ValueError, match=message):
        distill.load(folder)


@pytest.mark.parametrize("change", [{"std": [0.0]}, {"mean": [0.1, 0.2]}, {"std": []}])
def test_impossible_statistics_are_refused(artifact, tmp_path, change):
    folder = copied(artifact, tmp_path)
    card = json.loads((folder / "card.json").read_text())
    card["preprocessing"].update(change)
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match="mean and a positive std"):
        distill.load(folder)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no synthetic set"):
        distill.load(tmp_path / "nothing")


def test_other_real_data_under_the_same_name_is_refused(artifact, tmp_path):
    folder = copied(artifact, tmp_path)
    card = json.loads((folder / "card.json").read_text())
    card["dataset"]["fingerprint"] = "sha256:0"
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(
        ValueError,
        match=r"fingerprint differs: 1347 training and 450 test images found, 1347 and 450 expected",
    ):
        distill.load(folder).real_dataset()


def test_export_to_folder_npz_and_pt(artifact, tmp_path):
    pictures = artifact.pictures()
    folder = export(artifact, "folder", tmp_path / "png")
    assert np.array_equal(np.asarray(Image.open(folder / "1" / "002.png")), pictures[5, 0].numpy())
    assert len(list(folder.glob("*/*.png"))) == 30
    with np.load(export(artifact, "npz", tmp_path / "set.npz")) as archive:
        assert np.array_equal(archive["images"], artifact.images.numpy())
        assert archive["pixels"].shape == (30, 8, 8, 1)
        assert archive["labels"].tolist() == artifact.labels.tolist()
        assert set(archive.files) == {"images", "pixels", "labels", "classes", "mean", "std"}
    tensors = torch.load(export(artifact, "pt", tmp_path / "set.pt"), weights_only=True)
    assert torch.equal(tensors["images"], artifact.images)
    with pytest.raises(ValueError, match="exists already"):
        export(artifact, "pt", tmp_path / "set.pt")
    for kind in ("zip", ["npz"]):
        with pytest.raises(ValueError, match="unknown format"):
            export(artifact, kind, tmp_path / "set.zip")
    (tmp_path / "link.npz").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="exists already"):
        export(artifact, "npz", tmp_path / "link.npz")
    with np.load(export(str(artifact.path), "npz", tmp_path / "again.npz")) as archive:
        assert np.array_equal(archive["images"], artifact.images.numpy())


def test_exported_class_names_cannot_leave_the_folder(artifact, tmp_path):
    from dataclasses import replace

    hostile = replace(artifact, classes=("../../evil", "..", *"23456789"))
    out = export(hostile, "folder", tmp_path / "deep" / "png")
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == sorted(
        path.name for path in out.rglob("*.png")
    )
    assert not (tmp_path / "evil").exists()


def test_classes_that_clean_to_the_same_name_keep_their_own_folders(artifact, tmp_path):
    from dataclasses import replace

    alike = replace(artifact, classes=("a/b", "a_b", *"23456789"))
    out = export(alike, "folder", tmp_path / "png")
    assert sorted(path.name for path in out.iterdir()) == [*"23456789", "a_b_0", "a_b_1"]
    assert len(list(out.glob("*/*.png"))) == 30


@pytest.mark.parametrize(
    "names",
    [
        ("a/b", "a_b", "a_b_0"),
        ("a", "a", "a_0", "a_0"),
        ("a", "A", "a_1", "A_0"),
        ("\u00e9", "e\u0301", "\u00c9"),
        ("\N{LATIN SMALL LETTER SHARP S}", "SS", "ss"),
    ],
)
def test_folders_of_classes_differ_on_every_file_system(artifact, tmp_path, names):
    import unicodedata
    from dataclasses import replace

    classes = (*names, *"0123456789"[len(names) :])
    out = export(replace(artifact, classes=classes), "folder", tmp_path / "png")
    folders = {unicodedata.normalize("NFD", path.name).casefold() for path in out.iterdir()}
    assert len(folders) == 10
    assert all(len(list(path.iterdir())) == 3 for path in out.iterdir())


def test_real_images_through_the_wrong_space_would_be_noticed(artifact):
    """The point of shipping the preprocessing: without it the same network scores worse."""
    from distill.networks import build
    from distill.preprocessing import fit_preprocessing
    from distill.seeding import stream
    from distill.training import TrainingConfig, train

    network = build("convnet2", (1, 8, 8), 10, stream(0))
    cpu = torch.device("cpu")
    train(network, artifact.images, artifact.labels, config=TrainingConfig(epochs=60), seed=0, device=cpu)
    _, validation = artifact.split_real(artifact.real_dataset())
    plain = fit_preprocessing(artifact.real_dataset().train.images, zca=False)
    right, wrong = (
        evaluate(network, validation.images, validation.labels, device=cpu, preprocessing=p).accuracy
        for p in (artifact.preprocessing, plain)
    )
    assert right > 0.7
    assert right > wrong


def test_a_folder_whose_name_is_not_unicode_is_read(artifact, tmp_path):
    folder = copied(artifact, tmp_path, "b\udcff")
    assert torch.equal(distill.load(folder).images, artifact.images)

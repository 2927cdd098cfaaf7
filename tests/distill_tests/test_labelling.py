"""Soft labels: the teachers' predictions, kept with the set, resumed to the bit, and what networks learn."""

import json
import shutil
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
import torch
from distill_helpers import CPU
from safetensors.torch import load_file, save_file

import distill
from distill import labelling, networks
from distill.evaluation import Evaluator
from distill.export import export
from distill.labelling import LabelConfig, label, softened, teacher_training
from distill.methods import load as load_method
from distill.seeding import derive_seed, stream
from distill.settings import DistillSettings
from distill.target import TEACHER
from distill.training import TrainingConfig, train

TRAINING = teacher_training(epochs=3)
TWO = LabelConfig(teachers=2, training=TRAINING, temperature=2.0, hard_share=0.25)


@pytest.fixture(scope="module", params=[1, 2], ids=["whole", "factor"])
def plain(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("sets") / "plain"
    config = load_method("dm").Config(iterations=3, width=8, batch_real=4, factor=request.param)
    settings = DistillSettings(dataset="digits", out=out, method="dm", method_config=config, ipc=2)
    return distill.distill(settings)


@pytest.fixture(scope="module")
def real(plain):
    return plain.real_dataset()


@pytest.fixture(scope="module")
def soft(plain, real, tmp_path_factory):
    return label(plain, real, tmp_path_factory.mktemp("sets") / "soft", TWO, device=CPU)


def test_a_teacher_that_diverges_is_one_line_with_advice(plain, real, tmp_path):
    wild = LabelConfig(training=replace(TRAINING, learning_rate=1e20))
    with pytest.raises(
        ValueError, match=r"loss is nan in epoch \d of teacher 1; a smaller learning_rate helps"
    ):
        label(plain, real, tmp_path / "wild", wild, device=CPU)


def test_the_labels_are_the_mean_of_what_the_teachers_say(plain, real, soft):
    fit, _ = plain.split_real(real)
    said = []
    for number in range(2):
        network = networks.build("convnet2", (1, 8, 8), 10, stream(0, "teacher", "convnet2", number))
        seed = derive_seed(0, "teacher", number)
        train(
            network, fit.images, fit.labels,
            config=TRAINING, seed=seed, device=CPU, preprocessing=plain.preprocessing,
        )  # fmt: skip
        with torch.no_grad():
            logits = network.eval()(plain.images).double().numpy()
        powers = np.exp(logits / 2.0)
        said.append(powers / powers.sum(axis=1, keepdims=True))
    expected = 0.75 * np.mean(said, axis=0) + 0.25 * np.eye(10)[plain.labels.numpy()]
    assert soft.soft_labels.numpy() == pytest.approx(expected, abs=1e-4)


def test_a_labelled_set_is_the_same_set_with_labels(plain, soft):
    found = distill.load(soft.path)
    assert torch.equal(found.images, plain.images)
    assert torch.equal(found.labels, plain.labels)
    assert torch.equal(found.soft_labels, soft.soft_labels)
    assert found.targets is found.soft_labels
    assert plain.targets is plain.labels
    assert found.soft_labels.shape == (20 * plain.factor**2, 10)
    assert torch.equal(found.dataset()[3][1], found.soft_labels[3])
    assert "soft labels" in repr(found)
    names = {path.name for path in plain.path.iterdir()}
    assert {path.name for path in soft.path.iterdir()} == names


def test_the_card_counts_the_teachers_seconds(plain, soft):
    card, said = soft.card, soft.card["soft_labels"]
    assert card["format_version"] == 3
    assert (said["teachers"], said["network"], said["temperature"]) == (2, "convnet2", 2.0)
    assert said["training"]["epochs"] == 3
    assert len(said["validation_accuracy"]) == 2
    assert min(said["validation_accuracy"]) > 0.5
    for seconds in ("wall_seconds", "cpu_seconds"):
        assert said[seconds] > 0
        assert card[seconds] == pytest.approx(plain.card[seconds] + said[seconds])
    assert card["config"] == plain.card["config"]
    log = [json.loads(line) for line in (soft.path / "log.jsonl").read_text().splitlines()]
    assert log == plain.card["loss_curve"]


@pytest.mark.parametrize("epochs", [1, 4, 6])
def test_an_interrupted_labelling_ends_in_the_same_bits(plain, real, soft, tmp_path, monkeypatch, epochs):
    trained = []

    def counted(*args, **options):
        trained.append(options["until"])
        return train(*args, **options)

    def stop(done):
        if done == epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(labelling, "train", counted)
    with pytest.raises(KeyboardInterrupt):
        label(plain, real, tmp_path / "soft", TWO, device=CPU, on_epoch=stop)
    with pytest.raises(ValueError, match="holds no synthetic set"):
        distill.load(tmp_path / "soft")
    again = label(plain, real, tmp_path / "soft", TWO, device=CPU)
    assert trained == [1, 2, 3, 1, 2, 3]
    assert torch.equal(again.soft_labels, soft.soft_labels)
    assert not list((tmp_path / "soft").glob(f"{TEACHER}*"))


def test_teachers_of_other_settings_are_not_taken_up(plain, real, tmp_path):
    def stop(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label(plain, real, tmp_path / "soft", TWO, device=CPU, on_epoch=stop)
    one = LabelConfig(training=replace(TRAINING, epochs=1, learning_rate=0.01))
    other = label(plain, real, tmp_path / "soft", one, device=CPU)
    straight = label(plain, real, tmp_path / "straight", one, device=CPU)
    assert torch.equal(other.soft_labels, straight.soft_labels)


@pytest.mark.parametrize(
    "name", ["teacher-notes.txt", "teacher-photos/x", ".new-stuff/x", ".atom-nas-new-stuff/x", ".export/x"]
)
def test_files_of_others_are_no_left_overs(plain, real, tmp_path, name):
    """However much they are called like ours: neither is the folder taken, nor are they removed."""
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(ValueError, match="holds no synthetic set; name another --out"):
        label(plain, real, tmp_path / "out", TWO, device=CPU)
    (tmp_path / "out" / "README.md").unlink(missing_ok=True)
    shutil.copytree(plain.path, tmp_path / "out", dirs_exist_ok=True)
    label(plain, real, tmp_path / "out", TWO, device=CPU, overwrite=True)
    assert file.read_text() == "mine"


def test_what_cannot_be_labelled_is_refused(plain, real, soft, tmp_path):
    with pytest.raises(ValueError, match="has soft labels already"):
        label(soft, real, tmp_path / "again", TWO, device=CPU)
    with pytest.raises(ValueError, match="is the set itself"):
        label(plain, real, plain.path, TWO, device=CPU)
    with pytest.raises(ValueError, match="holds a synthetic set already"):
        label(plain, real, soft.path, TWO, device=CPU)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds no synthetic set; name another --out"):
        label(plain, real, tmp_path, TWO, device=CPU)
    settings = DistillSettings(dataset="digits", out=soft.path, method="dm", ipc=2)
    with pytest.raises(ValueError, match="was given soft labels since"):
        distill.distill(settings, resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teachers": 0}, "teachers must be at least 1"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"temperature": float("nan")}, "temperature must be positive"),
        ({"hard_share": 1.0}, r"hard_share must lie in \[0, 1\)"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        LabelConfig(**changes)


def tampered(soft, folder, *, card=None, **tensors):
    """A copy with other tensors, whose digest is right; None leaves one out."""
    folder.mkdir()
    for path in soft.path.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    file = folder / "synthetic.safetensors"
    whole = {**load_file(file), **tensors}
    save_file({name: tensor for name, tensor in whole.items() if tensor is not None}, file)
    said = json.loads((folder / "card.json").read_text()) | (card or {})
    said["images_sha256"] = sha256(file.read_bytes()).hexdigest()
    (folder / "card.json").write_text(json.dumps(said))
    return folder


def test_soft_labels_that_are_none_are_refused(soft, tmp_path):
    good = soft.soft_labels
    wrong = {
        "needs soft labels of float32": [good[:-1], good.double(), good[:, :9].contiguous()],
        "no probabilities": [
            good * 2,
            good * float("nan"),
            good - 1,
            torch.cat([good[:, :9] + 1, -good[:, 9:]], 1),
        ],
        "speaks of some soft labels, and .* has none": [None],
    }
    for message, each in wrong.items():
        for number, tensor in enumerate(each):
            folder = tampered(soft, tmp_path / f"{message[:5]}{number}", soft_labels=tensor)
            with pytest.raises(ValueError, match=message):
                distill.load(folder)
    with pytest.raises(ValueError, match=r"speaks of no soft labels, and .* has some"):
        distill.load(tampered(soft, tmp_path / "silent", card={"soft_labels": None}))
    with pytest.raises(ValueError, match=r"soft_labels\.teachers"):
        distill.load(tampered(soft, tmp_path / "wrong", card={"soft_labels": {"teachers": 0}}))


def test_one_hot_labels_train_as_classes_do(plain):
    config = TrainingConfig(epochs=5, augmentation="none")
    trained = []
    for targets in (plain.labels, softened(torch.full((len(plain), 10), 0.1), plain.labels, 1.0)):
        network = networks.build("convnet2", (1, 8, 8), 10, stream(0, "one hot"))
        record = train(network, plain.images, targets, config=config, seed=0, device=CPU)
        trained.append(record.epoch_losses)
    assert trained[1] == pytest.approx(trained[0], rel=1e-4)


def test_networks_are_trained_on_the_soft_labels(plain, soft, real):
    config = TrainingConfig(epochs=4, augmentation="none")
    judged = Evaluator(soft, real, config=config, seed=0, device=CPU)
    images, targets = judged._training_set("synthetic", 0)
    assert targets is soft.soft_labels
    assert len(images) == len(targets)
    assert judged._training_set("random", 0)[1].dtype == torch.int64
    assert 0 < judged.accuracy("synthetic", "convnet2", 0) < 1


def test_exports_have_the_soft_labels(soft, tmp_path):
    with np.load(export(soft, "npz", tmp_path / "set.npz")) as archive:
        assert np.array_equal(archive["soft_labels"], soft.soft_labels.numpy())
    tensors = torch.load(export(soft, "pt", tmp_path / "set.pt"), weights_only=True)
    assert torch.equal(tensors["soft_labels"], soft.soft_labels)


def test_teachers_of_another_seed_are_not_taken_up(plain, real, tmp_path):
    def stop(done):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label(plain, real, tmp_path / "soft", LabelConfig(training=TRAINING), device=CPU, on_epoch=stop)
    one = LabelConfig(training=TRAINING, seed=1)
    other, straight = (label(plain, real, tmp_path / name, one, device=CPU) for name in ("soft", "straight"))
    assert torch.equal(other.soft_labels, straight.soft_labels)

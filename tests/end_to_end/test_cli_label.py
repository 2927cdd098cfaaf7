"""`atom-nas label` as a user types it: labels that evaluate and search then train on."""

import json

import pytest
import torch
from cli_helpers import done, refused

import atom_nas

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def soft(synthetic):
    out = synthetic.parent / "soft"
    said = done("label", synthetic, "--epochs", 2, "--set", "batch_size=64", "--out", out).stdout
    assert "by 1 teacher, " in said
    assert "right on held-out images" in said
    return out


def test_a_labelled_set_is_evaluated_beside_the_other(synthetic, soft):
    shown = done("evaluate", synthetic, soft, "--epochs", 2, "--repeats", 1, "--json").stdout
    hard, softened = json.loads(shown)["sets"]
    assert (hard["name"], softened["name"]) == (synthetic.name, "soft")
    assert [each["soft_labels"] for each in (hard, softened)] == [None, 1]
    assert hard["networks"] != softened["networks"]


def test_a_search_trains_on_the_soft_labels(synthetic, soft, tmp_path):
    (tmp_path / "list.csv").write_text("architecture\nw32-d1-none-relu-none\nw32-d1-none-relu-avg\n")
    options = ["--architectures", tmp_path / "list.csv", "--epochs", 2, "--reference", "none"]
    options += ["--validation-images", 50, "--workers", 1, "--estimators", "snip"]
    found = {}
    for name, folder in (("hard", synthetic), ("soft", soft)):
        done("search", folder, *options, "--out", tmp_path / name)
        found[name] = json.loads((tmp_path / name / "report" / "report.json").read_text())
    assert "soft labels of 1 teacher" in (tmp_path / "soft" / "report" / "report.md").read_text()
    assert "soft labels" not in (tmp_path / "hard" / "report" / "report.md").read_text()
    spent = [found[name]["run"]["synthetic"]["distill_seconds"] for name in ("hard", "soft")]
    assert spent[1] > spent[0]
    assert atom_nas.load(soft).card["wall_seconds"] == pytest.approx(spent[1])


def test_teachers_that_know_nothing_are_told_of(synthetic, tmp_path):
    slow = ["--epochs", 1, "--set", "learning_rate=1e-9"]
    said = " ".join(done("label", synthetic, *slow, "--out", tmp_path / "set").stderr.split())
    assert "teachers are right little more often than by guessing one of 10 classes" in said


def test_a_folder_of_pictures_has_no_room_for_soft_labels(soft, synthetic, tmp_path):
    said = "soft labels are left out: a folder knows one class an image"
    for folder, to, told in ((soft, "folder", True), (soft, "npz", False), (synthetic, "folder", False)):
        shown = done("export", folder, "--to", to, "--out", tmp_path / f"{folder.name}-{to}").stderr
        assert (said in " ".join(shown.split())) == told


def test_from_python_the_labels_are_the_commands(synthetic, soft, tmp_path):
    made = atom_nas.label(str(synthetic), tmp_path / "same", training={"epochs": 2, "batch_size": 64})
    assert torch.equal(made.soft_labels, atom_nas.load(soft).soft_labels)
    with pytest.raises(ValueError, match="unknown setting 'teacher': did you mean 'teachers'"):
        atom_nas.label(synthetic, tmp_path / "other", teacher=2)
    for message, given in {
        "temperature must be positive": {"temperature": 0},
        "network must be text, not 5": {"network": 5},
        "training is a TrainingConfig, or a mapping of its keys, not 5": {"training": 5},
    }.items():
        with pytest.raises(ValueError, match=message):
            atom_nas.label(synthetic, tmp_path / "other", **given)
    assert not (tmp_path / "other").exists()


def test_mistakes_are_one_line(synthetic, soft, tmp_path):
    out = tmp_path / "out"
    assert "--network takes no network of your own" in refused(
        "label", synthetic, "--network", "mine.py:make", "--out", out
    )
    assert "unknown network 'convnet33'" in refused(
        "label", synthetic, "--network", "convnet33", "--out", out
    )
    assert "temperature must be positive" in refused("label", synthetic, "--temperature", -1, "--out", out)
    assert "unknown" in refused("label", synthetic, "--set", "epoch=3", "--out", out)
    assert "has soft labels already" in refused("label", soft, "--out", out)
    assert "holds a synthetic set already" in refused("label", synthetic, "--out", soft)
    assert not out.exists()

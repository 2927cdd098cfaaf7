"""`atom-nas evaluate` as a user types it."""

import json

import pytest
from cli_helpers import done, refused

from distill.files import cache_folder

pytestmark = pytest.mark.usefixtures("own_cache")


def test_evaluate_prints_the_promised_json_and_repeats_nothing(synthetic):
    command = ["evaluate", synthetic, "--repeats", 2, "--epochs", 3, "--networks", "convnet2", "--json"]
    found = json.loads(done(*command).stdout)
    entry = found["networks"]["convnet2"]
    assert set(entry) >= {"mean", "std", "n"}
    assert 0 <= entry["mean"] <= 1
    assert entry["n"] == found["random_baseline"]["n"] == 2
    (record,) = (cache_folder() / "evaluations").iterdir()
    lines = record.read_text()
    again = done(*command)
    assert found.pop("reused") == 0
    assert json.loads(again.stdout) == {**found, "reused": 4}
    assert "not repeated: 4 trainings" in again.stderr
    assert record.read_text() == lines
    assert sum("network" in line for line in lines.splitlines()) == 4
    assert "random real" in done(*command[:-1]).stdout
    assert json.loads(done(*command, "--fresh").stdout) == {**found, "reused": 0}


def test_evaluate_shows_several_sets_side_by_side(synthetic, tmp_path):
    other, picture = tmp_path / "other", tmp_path / "matrix.svg"
    done("distill", "--dataset", "digits", "--method", "random", "--ipc", 2, "--out", other)
    command = ["evaluate", synthetic, other, "--repeats", 1, "--epochs", 1, "--networks", "convnet2,alexnet"]
    command += ["--split", "validation", "--workers", 2]
    shown = done(*command, "--picture", picture)
    assert "validation split" in shown.stdout
    assert [name in shown.stdout for name in ("set", "other", "random real", "alexnet")] == [True] * 4
    assert f"picture: {picture}" in shown.stderr
    assert "alexnet does no better than guessing one of 10 classes: more --epochs may help" in shown.stderr
    assert b"<svg" in picture.read_bytes()
    found = json.loads(done(*command, "--json").stdout)
    assert found["reused"] == 6
    assert [entry["method"] for entry in found["sets"]] == ["atom", "random"]
    assert "draws .png or .svg" in refused(*command, "--picture", tmp_path / "matrix.pdf")
    assert "no folder" in refused(*command, "--picture", tmp_path / "none" / "matrix.png")
    assert "given twice" in refused("evaluate", other, other)
    assert "did you mean 'validation'" in refused("evaluate", other, "--split", "validaton")
    assert "at least 16x16 pixels, not 8x8" in refused("evaluate", other, "--networks", "resnet18")


def test_a_set_without_validation_images_cannot_be_tuned_on_them(tmp_path):
    out = tmp_path / "set"
    done(
        "distill", "--dataset", "digits", "--method", "random", "--set", "validation_fraction=0", "--out", out
    )
    assert "distilled with validation_fraction=0" in refused("evaluate", out, "--split", "validation")


def test_what_a_set_says_of_its_own_accuracy_is_not_believed(synthetic, monkeypatch, tmp_path):
    command = ["evaluate", synthetic, "--repeats", 1, "--epochs", 1, "--no-baseline", "--json"]
    found = json.loads(done(*command).stdout)
    (record,) = (cache_folder() / "evaluations").iterdir()
    forged = [json.dumps({**json.loads(line), "accuracy": 0.999}) for line in record.read_text().splitlines()]
    monkeypatch.setenv("ATOM_NAS_CACHE", str(tmp_path / "other"))
    planted = synthetic / "evaluations.jsonl"
    planted.write_text("\n".join(forged) + "\n")
    assert json.loads(done(*command).stdout) == found
    planted.unlink()


def test_a_cache_that_cannot_be_written_is_a_warning(synthetic, monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("ATOM_NAS_CACHE", str(blocked))
    command = ["evaluate", synthetic, "--repeats", 1, "--epochs", 1, "--no-baseline", "--json"]
    with pytest.warns(UserWarning, match="finished trainings are not kept"):
        assert json.loads(done(*command).stdout)["reused"] == 0

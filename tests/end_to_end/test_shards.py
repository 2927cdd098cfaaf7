"""Sharding from the command line: distill in parts, merge, and clear refusals on the way."""

import pytest
from typer.testing import CliRunner

from atom_nas.cli import app

QUICK = ["--dataset", "digits", "--ipc", "1", "--iterations", "3", "--device", "cpu"]
SMALL = ["--set", "width=16", "batch_real=4"]


def call(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    return result.exit_code, result.output


def distill(out, *more):
    return call("distill", *QUICK, *SMALL, "--out", out, *more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    for index in (1, 2):
        code, text = distill(folder / f"part-{index}", "--shard", f"{index}/2", "--deterministic")
        assert code == 0, text
        assert f"5 images (1 per class), shard {index}/2" in text
    return folder


def test_merged_parts_have_the_bytes_of_one_run(folder, tmp_path):
    assert distill(tmp_path / "one", "--deterministic")[0] == 0
    code, text = call("merge", folder / "part-2", folder / "part-1", "--out", tmp_path / "merged")
    assert code == 0, text
    assert "10 images (1 per class) of 2 shards" in text
    images = [(tmp_path / name / "synthetic.safetensors").read_bytes() for name in ("one", "merged")]
    assert images[0] == images[1]
    assert call("export", tmp_path / "merged", "--to", "npz")[0] == 0


@pytest.mark.parametrize("command", ["evaluate", "export", "search"])
def test_a_shard_is_no_set(folder, tmp_path, command):
    options = {"export": ["--to", "npz"], "search": ["--out", tmp_path / "run"]}.get(command, [])
    code, text = call(command, folder / "part-2", *options)
    assert code == 2
    assert "it is shard 2 of 2: merge all of them with 'atom-nas merge'" in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize("wrong", ["0/8", "9/8", "2", "11/11"])
def test_wrong_parts_are_one_line(tmp_path, wrong):
    code, text = distill(tmp_path / "set", "--shard", wrong)
    assert code == 2
    assert text.splitlines()[-1].startswith(f"atom-nas: shard {wrong}".replace("shard 2", "shard '2'"))
    assert not (tmp_path / "set").exists()


def test_a_merge_that_cannot_be_is_one_line_and_leaves_nothing(folder, tmp_path):
    code, text = call("merge", folder / "part-1", "--out", tmp_path / "set")
    assert code == 2
    assert len(text.splitlines()) == 1
    assert "missing 2/2" in text
    assert not (tmp_path / "set").exists()


def test_help_tells_of_parts():
    assert "--shard" in call("distill", "--help")[1]
    assert "--deterministic" in call("distill", "--help")[1]
    assert "merge" in call("--help")[1]
    assert "classes_at_once" in call("list", "settings")[1]

"""What surrounds every command."""

import sys

import pytest
from cli_helpers import call, done
from PIL import Image

from atom_nas.cli import main
from atom_nas.terminal import searching, stages


@pytest.mark.parametrize("words", [[], ["--debug"]])
def test_the_command_alone_asks_for_help(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["atom-nas", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert "Start with 'atom-nas quickstart'" in " ".join(capsys.readouterr().out.split())


def test_an_interruption_of_a_replacement_says_that_the_old_set_may_be_there(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "show_distill", interrupt)
    result = call("distill", "--dataset", "digits", "--overwrite", "--out", tmp_path)
    assert result.exit_code == 130
    assert "with --resume to go on in place of --overwrite" in result.stderr


@pytest.mark.parametrize("begun", [False, True])
def test_an_interruption_says_how_to_go_on_as_far_as_something_is_stored(tmp_path, monkeypatch, begun):
    def interrupt(*_):
        if begun:
            (tmp_path / "run").mkdir()
            (tmp_path / "run" / "run.json").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(searching, "search_and_report", interrupt)
    result = call("search", tmp_path, "--out", tmp_path / "run")
    assert result.exit_code == 130
    wanted = "repeat the command with --resume" if begun else "nothing is stored yet: repeat the command\n"
    assert wanted in result.stderr


def test_folders_without_images_are_named(tmp_path):
    for number in range(3):
        for name in ("cats", "dogs"):
            (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 40 * number).save(tmp_path / "photos" / name / f"{number}.png")
    (tmp_path / "photos" / "birds to be").mkdir()
    words = ["distill", "--dataset", f"folder:{tmp_path / 'photos'}", "--method", "random", "--ipc", "1"]
    result = done(*words, "--out", tmp_path / "set")
    assert "left out, being without images: 'birds to be'" in result.stderr

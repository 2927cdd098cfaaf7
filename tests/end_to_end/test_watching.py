"""`--tensorboard` and `--evaluate-every` as they are typed, and with kills that nothing can be done about."""

import json
import signal
import subprocess
import sys
import time

import pytest
from cli_helpers import call

from atom_nas.commands.guard import fill_optional

QUICK = [
    "--dataset",
    "digits",
    "--ipc",
    "1",
    "--iterations",
    "20",
    "--set",
    "width=8",
    "--set",
    "batch_real=4",
]
SCRIPT = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
import distill.watching
distill.watching.EPOCHS = 2
from distill.methods.atom import Config
from distill.run import distill
from distill.settings import DistillSettings
settings = DistillSettings(
    dataset="digits", out=Path(sys.argv[1]), method_config=Config(iterations=40, width=16, batch_real=16),
    ipc=2, tensorboard=True, images_every=6, evaluate_every=15,
)
distill(settings, resume=True, checkpoint_seconds=0.0, on_progress=lambda _: time.sleep(float(sys.argv[2])))
"""


def steps(folder):
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    seen = module.EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()
    tags = seen.Tags()
    found = {tag: [event.step for event in seen.Scalars(tag)] for tag in tags["scalars"]}
    return {**found, **{tag: [event.step for event in seen.Images(tag)] for tag in tags["images"]}}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["distill", "--tensorboard"], ["distill", "--tensorboard="]),
        (["distill", "--tensorboard", "--ipc", "1"], ["distill", "--tensorboard=", "--ipc", "1"]),
        (["distill", "--tensorboard", "runs/tb"], ["distill", "--tensorboard", "runs/tb"]),
        (["distill", "--tensorboard=runs/tb"], ["distill", "--tensorboard=runs/tb"]),
        (["distill", "--ipc", "-1"], ["distill", "--ipc", "-1"]),
        ([], []),
    ],
)
def test_the_folder_may_be_left_out(typed, meant):
    assert list(fill_optional(typed)) == meant


@pytest.mark.parametrize("where", ["default", "named", "file"])
def test_a_watched_distillation(tmp_path, where):
    out, named = tmp_path / "set", tmp_path / "board"
    file = tmp_path / "settings.yaml"
    file.write_text("tensorboard: true\n")
    asked = {"default": ["--tensorboard"], "named": ["--tensorboard", named], "file": ["--config", file]}
    result = call("distill", *asked[where], "--images-every", "10", *QUICK, "--out", out)
    assert result.exit_code == 0, result.output
    folder = named if where == "named" else out / "tensorboard"
    assert f"tensorboard --logdir {folder}" in result.stderr.replace("\n", "")
    assert steps(folder)["loss/total"] == [10, 20]
    assert steps(folder)["images"] == [10, 20]


def test_help_shows_the_settings():
    text = " ".join(call("distill", "--help").output.split())
    for option in ("--tensorboard [DIR]", "--images-every", "--evaluate-every", "OUT/evaluations.jsonl"):
        assert option in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images-every", "5"], "add --tensorboard"),
        (["--evaluate-every", "0"], "--evaluate-every"),
        (["--evaluate-every", "5", "--set", "validation_fraction=0"], "holds out none"),
    ],
)
def test_what_cannot_be_watched_is_one_line(tmp_path, options, message):
    result = call("distill", *QUICK, *options, "--out", tmp_path / "set")
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("atom-nas: ")]
    assert message in line
    assert not (tmp_path / "set").exists()


def test_without_the_extra_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    result = call("distill", *QUICK, "--tensorboard", "--out", tmp_path / "set")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("atom-nas: TensorBoard is not installed: pip install")


def start(out, pause):
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(out), str(pause)], stderr=subprocess.PIPE)


def kill_after(process, iteration, log):
    """End it with SIGKILL a little after `iteration` was logged."""
    limit = time.monotonic() + 120
    while not (log.exists() and f'"iteration": {iteration},' in log.read_text()):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < limit, "nothing happened in time"
        time.sleep(0.005)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_a_killed_and_resumed_run_shows_what_a_whole_one_shows(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    kill_after(start(cut, 0.1), 20, cut / "log.jsonl")
    assert not (cut / "card.json").exists()
    for out in (cut, whole):
        process = start(out, 0.0)
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    for name in ("synthetic.safetensors", "log.jsonl", "images.png"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    assert steps(cut / "tensorboard") == steps(whole / "tensorboard")
    assert steps(cut / "tensorboard")["loss/total"] == [10, 20, 30, 40]

    def accuracies(folder):
        points = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
        return [(point["iteration"], point["accuracy"]) for point in points]

    assert accuracies(cut) == accuracies(whole)
    assert [step for step, _ in accuracies(cut)] == [15, 30, 40]

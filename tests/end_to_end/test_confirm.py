"""The final model, from the command line to Python; kills in between change nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from cli_helpers import done, refused

import atom_nas
from distill.training import evaluate
from reports.confirmed import FOLDER

pytestmark = pytest.mark.usefixtures("own_cache")
SMALL = ["--set-space", "width=[32]", "depth=[1]", "norm=[none]"]
SEARCH = ["--samples", 3, "--epochs", 2, "--reference", "none", "--device", "cpu", "--seed", 5, *SMALL]


def bytes_of(run: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (run / FOLDER).glob("*.safetensors")}


@pytest.fixture(scope="module")
def run(synthetic):
    out = synthetic.parent / "confirmed-run"
    said = done("search", synthetic, *SEARCH, "--out", out)
    assert "--resume --confirm 3" in said.stderr
    with pytest.raises(ValueError, match="no confirmed architecture"):
        atom_nas.load_architecture(out)
    again = done("search", synthetic, "--out", out, "--resume", "--confirm", 2, "--confirm-epochs", 4,
                 "--set-confirm", "batch_size=50", "schedule=cosine")  # fmt: skip
    assert "Confirmed on real data" in again.stdout
    assert "confirm (epochs): 8/8" in again.stderr
    return out


def test_the_finished_run_keeps_its_settings(run):
    record = json.loads((run / "run.json").read_text())
    assert (record["strategy"]["samples"], record["seed"], record["reference"]["kind"]) == (3, 5, "none")
    assert record["proxy"]["training"]["epochs"] == 2
    assert record["confirm"]["settings"]["training"]["schedule"] == "cosine"
    assert len(json.loads((run / "report" / "report.json").read_text())["confirmed"]["rows"]) == 2


def test_the_loaded_network_scores_as_recorded(run, synthetic):
    test = atom_nas.load(synthetic).real_dataset().test
    for rank in (1, 2):
        model = atom_nas.load_architecture(run, rank=rank)
        found = evaluate(
            model.network, test.images, test.labels, device=torch.device("cpu"),
            preprocessing=model.preprocessing,
        )  # fmt: skip
        assert found.accuracy == model.card["test_accuracy"]


def test_resuming_again_repeats_nothing(run, synthetic):
    before = bytes_of(run), (run / "trials.sqlite").read_bytes()
    said = done("search", synthetic, "--out", run, "--resume")
    assert "8/8" in said.stderr
    assert (bytes_of(run), (run / "trials.sqlite").read_bytes()) == before


def test_wrong_confirmations_are_refused(run, synthetic, tmp_path):
    new = ("search", synthetic, *SEARCH, "--out", tmp_path / "run")
    assert "add --confirm K" in refused(*new, "--confirm-epochs", 3)
    assert "--confirm" in refused(*new, "--confirm", 0)
    assert "did you mean 'epochs'" in refused(*new, "--confirm", 1, "--set-confirm", "epoch=3")
    assert not (tmp_path / "run").exists()
    other = refused("search", synthetic, "--out", run, "--resume", "--confirm-epochs", 5)
    assert "confirmed with other settings" in other


LONGER = ["--confirm", 1, "--confirm-epochs", 20, "--set-confirm", "batch_size=10", "--workers", 2]


@pytest.fixture(scope="module")
def undisturbed(synthetic):
    out = synthetic.parent / "undisturbed"
    done("search", synthetic, *SEARCH, *LONGER, "--out", out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_confirmation_goes_on_to_the_same_bytes(synthetic, undisturbed, tmp_path, number):
    cut = tmp_path / "cut"
    command = [sys.executable, "-m", "atom_nas.cli", "search", synthetic, *SEARCH, *LONGER, "--out", cut]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
    with subprocess.Popen(list(map(str, command)), env=environment, start_new_session=True) as process:
        limit = time.monotonic() + 120
        while not list((cut / FOLDER).glob("unfinished/*.safetensors")):
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.005)
        process.send_signal(number)
        assert process.wait() != 0
    assert not list((cut / FOLDER).glob("*.json")), "too late: it had finished"
    done("search", synthetic, "--out", cut, "--resume")
    assert bytes_of(cut) == bytes_of(undisturbed)
    mine, other = (json.loads(next((run / FOLDER).glob("*.json")).read_text()) for run in (cut, undisturbed))
    for name in ("weights_sha256", "validation_accuracy", "test_accuracy"):
        assert mine[name] == other[name]
    assert not (cut / FOLDER / "unfinished").exists()


@pytest.mark.parametrize("name", [f"{FOLDER}/unfinished", "checkpoints"])
def test_a_planted_link_is_refused(run, synthetic, tmp_path, name):
    (run / name).symlink_to(tmp_path)
    try:
        assert f"{name} is a link: remove it" in refused("search", synthetic, "--out", run, "--resume")
    finally:
        (run / name).unlink()

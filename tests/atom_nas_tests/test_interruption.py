"""Kill -9 at random moments, resume: the table of an undisturbed run, and no process left behind."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atom_nas.run_folder import read_record
from atom_nas.search import SearchSettings, run_search
from atom_nas.trials import TrialStore

SCRIPT = """
import sys, time
from pathlib import Path
from atom_nas.search import SearchSettings, run_search

def tell(now):
    print(now.stage, now.done - now.reused, flush=True)
    time.sleep(0.3)  # so that there is something left to interrupt

if __name__ == "__main__":
    run_search(
        SearchSettings(
            synthetic=Path(sys.argv[1]), out=Path(sys.argv[2]), seed=SEED, samples=5, epochs=EPOCHS,
            reference_images=30, reference_epochs=EPOCHS, workers=2, device="cpu",
            resume="--resume" in sys.argv,
        ),
        progress=tell,
    )
"""
SEED, EPOCHS = 39, 4  # a seed whose samples are small networks


@contextmanager
def search(script: Path, digits_set: Path, out: Path) -> Iterator["subprocess.Popen[str]"]:
    """A search in a process group of its own."""
    command = [
        sys.executable,
        str(script),
        str(digits_set),
        str(out),
        *(["--resume"] if out.exists() else []),
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        yield process


def kill_after(process: "subprocess.Popen[str]", line: str, pause: float) -> None:
    """Kill the parent alone, some time after it has printed the line."""
    assert process.stdout is not None
    assert any(printed.strip() == line for printed in process.stdout)
    time.sleep(pause)
    process.send_signal(signal.SIGKILL)
    process.wait()


def members(group: int) -> list[int]:
    """Processes of a process group that still run."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, process_group = status.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has just ended
            continue
        if int(process_group) == group and state != "Z":
            found.append(int(status.parent.name))
    return found


def wait_until_gone(group: int) -> None:
    deadline = time.monotonic() + 300
    while members(group):
        assert time.monotonic() < deadline, f"left behind: {members(group)}"
        time.sleep(0.05)


def table(out: Path) -> list[tuple[Any, ...]]:
    with TrialStore.open(out / "trials.sqlite") as store:
        rows = store.trials("proxy") + store.trials("real")
    return [(t.estimator, t.architecture, t.position, t.status, t.scores, t.seed) for t in rows]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_a_run_killed_at_random_moments_ends_as_an_undisturbed_one(
    digits_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, out = tmp_path / "script.py", tmp_path / "killed"
    script.write_text(SCRIPT.replace("SEED", str(SEED)).replace("EPOCHS", str(EPOCHS)))
    moments = random.Random(0)
    for line in (f"proxy {moments.randint(1, 3)}", f"reference {moments.randint(1, 3)}"):
        with search(script, digits_set, out) as process:
            kill_after(process, line, pause=moments.uniform(0.0, 0.3))
        wait_until_gone(process.pid)
        assert read_record(out)["complete"] is False
    with search(script, digits_set, out) as process:
        assert process.wait() == 0
    wait_until_gone(process.pid)

    # Undisturbed, with another number of workers, and without the other run's cached references.
    monkeypatch.setenv("ATOM_NAS_CACHE", str(tmp_path / "empty"))
    settings = SearchSettings(
        synthetic=digits_set, out=tmp_path / "whole", seed=SEED, samples=5, epochs=EPOCHS
    )
    settings = replace(settings, reference_images=30, reference_epochs=EPOCHS, workers=1, device="cpu")
    run_search(settings)
    assert table(out) == table(settings.out)
    assert read_record(out)["complete"] is True


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_says_how_to_go_on_and_leaves_no_worker(
    digits_set: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "run"
    options = ["--samples", "40", "--epochs", "50", "--reference", "none", "--workers", "2"]
    command = [sys.executable, "-m", "atom_nas.cli", "search", str(digits_set), "--out", str(out), *options]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 300
        while not finished_trials(out):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(number)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "repeat the command with --resume" in said.splitlines()[-1]
    assert "'atom-nas report RUN' shows what is there" in said.splitlines()[-1]
    wait_until_gone(process.pid)
    assert read_record(out)["complete"] is False


def finished_trials(out: Path) -> int:
    if not (out / "trials.sqlite").exists():
        return 0
    with TrialStore.open(out / "trials.sqlite") as store:
        return len(store.trials("proxy"))

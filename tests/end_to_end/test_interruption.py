"""Runs that are killed or interrupted at random moments end as if they had not been."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from distill.methods.atom import Config
from distill.run import distill
from distill.settings import DistillSettings
config = Config(iterations=60, width=16, batch_real=16)
out, shard = Path(sys.argv[1]), sys.argv[2] or None
settings = DistillSettings(dataset="digits", out=out, method_config=config, ipc=2, shard=shard)
# Slowed down, so that on a fast machine too something is left to be killed.
distill(settings, resume=True, checkpoint_seconds=0.0, on_progress=lambda _: time.sleep(0.03))
"""


def start(out: Path, shard: str = "") -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(out), shard], stderr=subprocess.PIPE)


def wait_for(
    path: Path, process: "subprocess.Popen[bytes] | subprocess.Popen[str]", seconds: float = 60.0
) -> None:
    """Until `path` has content or the process has ended."""
    limit = time.monotonic() + seconds
    while process.poll() is None and not (path.exists() and path.stat().st_size):
        assert time.monotonic() < limit, "nothing happened in time"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("shard", "record"), [("", "card.json"), ("2/3", "shard.json")])
def test_a_killed_distillation_resumes_to_the_same_bytes(tmp_path, shard, record):
    moments = random.Random(0)
    assert start(tmp_path / "whole", shard).wait() == 0
    killed = 0
    out = tmp_path / "cut"
    while killed < 3:
        process = start(out, shard)
        wait_for(out / "checkpoint.safetensors", process)
        time.sleep(moments.uniform(0.0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (out / record).exists():
            break
        killed += 1
    assert killed > 0
    last = start(out, shard)
    _, errors = last.communicate()
    assert last.returncode == 0, errors
    for name in ("synthetic.safetensors", "log.jsonl", "images.png"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    leftovers = [path.name for path in out.iterdir() if path.suffix == ".tmp"]
    assert not leftovers


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_says_so_and_goes_on(tmp_path, number):
    out = tmp_path / "set"
    program = [sys.executable, "-m", "atom_nas.cli"]
    options = ["distill", "--dataset", "digits", "--ipc", "1", "--iterations", "100000", "--out", str(out)]
    quick = ["--set", "width=8", "--set", "batch_real=8", "--device", "cpu"]
    process = subprocess.Popen([*program, *options, *quick], stderr=subprocess.PIPE, text=True)
    wait_for(out / "log.jsonl", process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "--resume" in errors.splitlines()[-1]
    assert (out / "checkpoint.safetensors").exists()
    refusal = subprocess.run([*program, *options, *quick], capture_output=True, text=True, check=False)
    assert refusal.returncode == 2
    assert "--resume" in refusal.stderr
    points = [json.loads(line)["iteration"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert points == list(range(10, 10 * len(points) + 1, 10))

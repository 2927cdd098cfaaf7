"""What is asked of the system before torch starts."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

LARGE = """
import sys
from pathlib import Path
import torch
import distill
block = torch.ones(16 * 2**20)
address, flags = block.data_ptr(), []
for line in Path("/proc/self/smaps").read_text().splitlines():
    first = line.split()[0]
    if "-" in first:
        start, end = (int(part, 16) for part in first.split("-"))
    if first == "VmFlags:" and start <= address + 2**23 < end:
        flags = line.split()[1:]
print("hg" in flags)
"""
AGAIN = """
import resource
import sys
import torch
from distill.networks import build
from distill.process import return_freed_memory
from distill.seeding import stream
from distill.training import TrainingConfig, train
torch.set_num_threads(1)
if sys.argv[1] == "freed":
    import distill.training
    distill.training.keep_freed_memory = return_freed_memory
network = build("convnet3", (3, 32, 32), 10, generator=stream(0, "network"))
images, labels = torch.randn(64, 3, 32, 32), torch.arange(64) % 10
def once():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    config = TrainingConfig(epochs=2, batch_size=64, augmentation="none")
    train(network, images, labels, config=config, seed=0, device=torch.device("cpu"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
once(), once()
print(sum(once() for _ in range(3)))
"""
GLIBC = platform.libc_ver()[0] == "glibc"
NO_THP = not Path("/sys/kernel/mm/transparent_hugepage/enabled").exists()


def printed(script: str, *arguments: str, **environment: str) -> str:
    variables = {k: v for k, v in os.environ.items() if k != "THP_MEM_ALLOC_ENABLE"} | environment
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=variables).stdout.strip()


@pytest.mark.skipif(NO_THP, reason="this kernel has no transparent huge pages")
def test_large_tensors_ask_for_huge_pages_unless_told_not_to():
    assert printed(LARGE) == "True"
    assert printed(LARGE, THP_MEM_ALLOC_ENABLE="0") == "False"


@pytest.mark.skipif(not GLIBC, reason="the C library is not glibc")
def test_what_a_step_frees_is_there_for_the_next():
    """By the pages that the system has to clear."""
    kept, freed = (int(printed(AGAIN, how, THP_MEM_ALLOC_ENABLE="0")) for how in ("kept", "freed"))
    assert kept < freed / 20


def test_threads_wait_asleep_unless_told_how():
    show = "import distill, os; print(os.environ['OMP_WAIT_POLICY'], 'torch' in __import__('sys').modules)"
    variables = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    for given, wanted in (({}, "PASSIVE False"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE False")):
        command = [sys.executable, "-c", show]
        result = subprocess.run(command, capture_output=True, text=True, check=True, env=variables | given)
        assert result.stdout.strip() == wanted

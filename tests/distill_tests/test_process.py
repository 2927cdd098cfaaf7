"""What is asked of the system before torch starts."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distill import process
from distill.kernels import why_unavailable
from distill.training import accelerated

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
from distill import process
from distill.networks import build
from distill.seeding import stream
from distill.training import TrainingConfig, train
if sys.argv[1] == "ours":
    process.claim()
torch.set_num_threads(1)
network = build(sys.argv[2], (3, 32, 32), 10, generator=stream(0, "network"))
images, labels = torch.randn(64, 3, 32, 32), torch.arange(64) % 10
config = TrainingConfig(epochs=1, batch_size=64, augmentation="none")
train(network, images, labels, config=config, seed=0, device=torch.device("cpu"))
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(min([faults() for _ in range(8)]))
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
@pytest.mark.skipif(why_unavailable() is not None, reason="no kernels")
def test_what_is_freed_after_a_training_is_there_for_the_next_in_processes_of_our_own():
    """By the pages that the system has to clear for a block of 64 MiB: by itself glibc may keep blocks of up
    to 32 MiB for a while, and returns all larger ones."""
    own = int(printed(AGAIN, "ours", "convnet3", THP_MEM_ALLOC_ENABLE="0"))
    others = {
        "a user's process": ("theirs", {}),
        "malloc as the user wishes": ("ours", {"MALLOC_TRIM_THRESHOLD_": "131072"}),
    }
    for case, (whose, wishes) in others.items():
        found = int(printed(AGAIN, whose, "convnet3", THP_MEM_ALLOC_ENABLE="0", **wishes))
        assert own < found / 3, case


class Refusing:
    """A C library whose malloc takes thresholds of no more than some size, as glibc before 2.35."""

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, {}

    def mallopt(self, option: int, value: int) -> int:
        if option == process._MMAP_THRESHOLD and value > self.most:
            return 0
        self.taken[option] = value
        return 1


@pytest.fixture
def malloc(monkeypatch):
    """A stand-in for glibc, in a process that is our own; the kernels are loaded before."""
    why_unavailable()

    def make(most: int = 2**31) -> Refusing:
        library = Refusing(most)
        monkeypatch.setattr(process.ctypes, "CDLL", lambda _: library)
        monkeypatch.setattr(process, "_ours", True)
        monkeypatch.setattr(process, "_keeps", False)
        for name in (*process._OWN_WISHES, "GLIBC_TUNABLES"):
            monkeypatch.delenv(name, raising=False)
        return library

    return make


@pytest.mark.parametrize(("most", "kept"), [(2**31, 2**31 - 1), (2**25, 2**25), (0, None)])
def test_memory_is_kept_as_far_as_the_library_lets_it(malloc, most, kept):
    library = malloc(most)
    process.keep_freed_memory()
    assert library.taken.get(process._MMAP_THRESHOLD) == kept
    assert (process._TRIM_THRESHOLD in library.taken) == (kept is not None)


@pytest.mark.skipif(why_unavailable() is not None, reason="no kernels")
def test_keeping_ends_where_a_network_without_kernels_is_trained(malloc):
    library, cpu = malloc(), torch.device("cpu")
    plain = torch.nn.Flatten()
    accelerated(plain, cpu)
    assert library.taken == {}
    with_kernels = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU())
    assert accelerated(with_kernels, cpu) is not with_kernels
    assert library.taken[process._TRIM_THRESHOLD] == 2**31 - 1
    assert accelerated(plain, cpu) is plain
    assert library.taken == {process._MMAP_THRESHOLD: 2**23, process._TRIM_THRESHOLD: 2**24}


@pytest.mark.parametrize(
    ("tunables", "kept"), [("glibc.pthread.rseq=1", True), ("glibc.malloc.mmap_threshold=65536", False)]
)
def test_wishes_that_say_nothing_of_malloc_do_not_matter(malloc, monkeypatch, tunables, kept):
    library = malloc()
    monkeypatch.setenv("GLIBC_TUNABLES", tunables)
    process.keep_freed_memory()
    assert bool(library.taken) == kept


def test_threads_wait_asleep_unless_told_how():
    show = "import distill, os; print(os.environ['OMP_WAIT_POLICY'], 'torch' in __import__('sys').modules)"
    variables = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    for given, wanted in (({}, "PASSIVE False"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE False")):
        command = [sys.executable, "-c", show]
        result = subprocess.run(command, capture_output=True, text=True, check=True, env=variables | given)
        assert result.stdout.strip() == wanted

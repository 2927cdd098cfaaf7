"""What is asked of the system before torch starts."""

import os
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
NO_THP = not Path("/sys/kernel/mm/transparent_hugepage/enabled").exists()


def advised(**environment: str) -> str:
    variables = {k: v for k, v in os.environ.items() if k != "THP_MEM_ALLOC_ENABLE"} | environment
    command = [sys.executable, "-c", LARGE]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=variables).stdout.strip()


@pytest.mark.skipif(NO_THP, reason="this kernel has no transparent huge pages")
def test_large_tensors_ask_for_huge_pages_unless_told_not_to():
    assert advised() == "True"
    assert advised(THP_MEM_ALLOC_ENABLE="0") == "False"


def test_threads_wait_asleep_unless_told_how():
    show = "import distill, os; print(os.environ['OMP_WAIT_POLICY'], 'torch' in __import__('sys').modules)"
    variables = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    for given, wanted in (({}, "PASSIVE False"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE False")):
        command = [sys.executable, "-c", show]
        result = subprocess.run(command, capture_output=True, text=True, check=True, env=variables | given)
        assert result.stdout.strip() == wanted

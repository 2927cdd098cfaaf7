"""What a process asks of the system before torch starts: how memory is taken, and how threads wait.

A network's maps are large blocks, which glibc returns when they are freed; at the next step the system
clears them again, page by page of 4 KiB. Torch can ask for pages of 2 MiB instead (Linux, transparent huge
pages set to `madvise` or `always`): training steps on a CPU became 1.1 to 1.7 times and eager distillation
2.5 times as fast. Letting glibc keep what is freed (mallopt) was as fast, but took 2 to 3 times the memory.
So did both, with 128 MiB kept (steps of narrow ConvNets 1.07 to 1.18 times as fast): glibc leaves holes
between blocks that begin at huge pages.

Torch's threads wait for their next piece of work by spinning, on cores that our kernels' threads, or other
programs, could use. Waiting asleep took a fifth of the processor time off a distillation and a tenth of the
wall time off a training on two threads, both eager operations and kernels.
"""

import ctypes
import os
from contextlib import suppress

HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"


def use_huge_pages() -> None:
    """Have torch ask for huge pages, in this process and those it starts, unless the user has said whether.

    Torch looks at the variable once, when the process makes its first tensor; later it is of no effect.
    """
    os.environ.setdefault(HUGE_PAGES, "1")


def wait_asleep() -> None:
    """Have OpenMP's threads wait asleep, in this process and those it starts, unless the user has said how.

    Of no effect where torch has been imported already.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def return_freed_memory() -> None:
    """Hand back to the system what this process has freed, where the C library is glibc."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)

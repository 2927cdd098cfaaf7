"""What a process asks of the system: how memory is taken, and how threads wait.

A network's maps are large blocks, which glibc returns when they are freed; at the next step the system
clears them again, page by page of 4 KiB. Torch can ask for pages of 2 MiB instead (Linux, transparent huge
pages set to `madvise` or `always`): training steps on a CPU became 1.1 to 1.7 times and eager distillation
2.5 times as fast. In processes of our own, networks with kernels train with all that glibc frees kept as
well: without it two lots of 20 ConvNets took 1.16 and 1.13 times as long, and 75 and 91 MiB less memory at
the peak (of 953 and 908). Other networks gain nothing by it and need up to 500 MiB more, so that it ends
where such a one is trained; a distillation gains 2%.

Torch's threads wait for their next piece of work by spinning, on cores that our kernels' threads, or other
programs, could use. Waiting asleep took a fifth of the processor time off a distillation and a tenth of the
wall time off a training on two threads, both eager operations and kernels.
"""

import ctypes
import os
from contextlib import suppress

HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST = (2**31 - 1, 32 * 2**20)  # glibc before 2.35 takes no more than the latter
# glibc's own thresholds grow with what is freed; with these other networks take what they take alone.
_USUAL = (8 * 2**20, 16 * 2**20)
_OWN_WISHES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_")
_ours = False
_keeps = False


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


def claim() -> None:
    """Say that this process does our work alone, so that `keep_freed_memory` is of effect in it."""
    global _ours
    _ours = True


def keep_freed_memory(keep: bool = True) -> None:
    """Have a process of our own keep what it frees for what it needs next, or no longer, with glibc.

    Of no effect in others, or where the user's environment says how malloc is to work. `return_freed_memory`
    still gives the memory back.
    """
    global _keeps
    if _ours and keep != _keeps and not _has_own_wishes():
        _keeps = keep
        _set_thresholds(*((_LARGEST, _LARGEST[0]) if keep else (_USUAL[:1], _USUAL[1])))


def _has_own_wishes() -> bool:
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return "glibc.malloc." in tunables or any(name in os.environ for name in _OWN_WISHES)


def _set_thresholds(mmap: tuple[int, ...], trim: int) -> None:
    """Of blocks that the system is asked for one by one, the first that is taken; and of what is kept."""
    with suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        # The second without the first would have all large blocks returned, which is worse than nothing.
        if any(library.mallopt(_MMAP_THRESHOLD, size) for size in mmap):
            library.mallopt(_TRIM_THRESHOLD, trim)


def return_freed_memory() -> None:
    """Hand back to the system what this process has freed, where the C library is glibc."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def is_want_of_memory(error: BaseException) -> bool:
    """Whether there was too little memory: torch has an exception for it where its own allocator on a GPU
    fails, cuBLAS, cuDNN and the driver have words."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = ("alloc_cpu", "out of memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(each in str(error) for each in words)

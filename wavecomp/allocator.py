"""What glibc does with memory that is freed."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # malloc.h


def keep_freed_memory(keep: bool = True) -> None:
    """Have glibc keep all that is freed, as torch does on a GPU, or give back at once whatever is large.

    A training step takes the same large blocks anew each time, and a block that is taken anew costs a fault per page: a
    third of the time of a step of the quickstart. To give back makes the peak of memory what is held at once. Unless
    told, glibc gives back blocks above 32 MiB and what lies free at the top.

    It is told for the whole process; where there is no glibc nothing happens.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        return
    libc.mallopt(M_MMAP_THRESHOLD, 2**16)
    libc.mallopt(M_MMAP_MAX, 0 if keep else 2**16)
    libc.mallopt(M_TRIM_THRESHOLD, -1 if keep else 2**17)
    if not keep:
        libc.malloc_trim(0)

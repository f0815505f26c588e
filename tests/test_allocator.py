"""Memory that is freed and taken again: kept by the process, or given back."""

import platform
import subprocess
import sys

import pytest

pytest.importorskip("resource")

# in a process of its own: in the heap that other tests leave, a block need not fit where it lay
PROGRAM = """
import resource, torch
from wavecomp.allocator import keep_freed_memory

def faults_of_taking_a_block_again():
    torch.ones(2**24)  # 64 MiB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

for keep in (True, False):
    keep_freed_memory(keep)
    print(min(faults_of_taking_a_block_again() for _ in range(3)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is told")
def test_a_block_that_was_freed_is_at_hand_unless_it_is_given_back():
    said = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=120)
    kept, given_back = map(int, said.stdout.split())
    assert kept < 100
    assert given_back > 1000  # one per page, pages of 4 to 64 KiB

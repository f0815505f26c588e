"""Memory that is freed and taken again: kept by the process, or given back."""

import platform
import subprocess
import sys

import pytest

pytest.importorskip("resource")

# in a process of its own, whose heap is not what other tests leave; the least of some, since a block need not fit where
# it lay when what lay before it is taken by another
PROGRAM = """
import resource, torch
from wavecomp.allocator import keep_freed_memory

def faults_of_taking_a_block():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory({keep})
print(min(faults_of_taking_a_block() for _ in range(8)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is told")
@pytest.mark.parametrize("keep", [True, False])
def test_a_block_that_was_freed_is_at_hand_unless_it_is_given_back(keep):
    command = [sys.executable, "-c", PROGRAM.format(keep=keep)]
    faults = int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
    if keep:
        assert faults < 100
    else:
        assert faults > 1000  # one per page, pages of 4 to 64 KiB

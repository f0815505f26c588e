"""Memory that is freed and taken again: kept by the process, or given back."""

import platform

import pytest
import torch

from wavecomp.allocator import keep_freed_memory

resource = pytest.importorskip("resource")


def faults_of_taking_a_block_again():
    torch.ones(2**24)  # 64 MiB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is told")
def test_a_block_that_was_freed_is_at_hand_unless_it_is_given_back():
    keep_freed_memory()
    assert faults_of_taking_a_block_again() < 100
    try:
        keep_freed_memory(False)
        assert faults_of_taking_a_block_again() > 1000  # one per page, pages of 4 to 64 KiB
    finally:
        keep_freed_memory()

import os

import pytest
import torch

from wavecomp.allocator import keep_freed_memory


def pytest_configure(config):
    """The workers share out the cores, and so do the processes that they start."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    cores = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    threads = max(1, cores // workers)
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    keep_freed_memory()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def pytest_collection_modifyitems(items):
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))

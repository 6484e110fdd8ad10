"""Seeds, and where the real images are."""

import os
from pathlib import Path

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores
    torch.set_num_threads(1)
SHARED = Path(os.environ.get("CFII_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def real_data():
    """The folder of real images; without it a test is skipped, but in CI their absence is a failure."""
    if not SHARED.is_dir():
        reason = f"real images: expected them in {SHARED} (or set CFII_DATA to their folder)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return SHARED

"""A user's folder of images and masks."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path):
    """Twelve colour images of one bright box each, in three sizes, and their masks."""
    rng = np.random.default_rng(0)
    root = tmp_path / "data"
    for name in ("img", "labelcol"):
        (root / name).mkdir(parents=True)
    for i in range(12):
        truth = np.zeros((40 + 8 * (i % 3), 52), np.uint8)
        truth[8 + i : 24 + i, 10 : 30 + i] = 1
        noise = rng.integers(0, 60, (*truth.shape, 3), dtype=np.uint8)
        image = 150 * truth[..., None] + noise
        Image.fromarray(image).save(root / "img" / f"{i:02}.png")
        Image.fromarray(truth).save(root / "labelcol" / f"{i:02}.png")
    return str(root)

"""Which part of an image or volume is drawn, and at which size."""

import numpy as np
import pytest
import torch

from cfii.training import explain as module
from cfii.training.explain import explain_prediction, window
from cfii.training.resize import Resize


@pytest.fixture
def drawn(monkeypatch):
    """What would have been drawn."""
    calls = []
    monkeypatch.setattr(module, "explain", lambda model, image, **options: calls.append((image, options)))
    monkeypatch.setattr(module, "save", lambda figure, file: None)
    return calls


def test_the_slice_with_most_labels_at_the_networks_size(drawn):
    image = np.arange(4, dtype=np.float32)[None, :, None, None] * np.ones((1, 4, 6, 8), np.float32)
    labels = np.zeros((4, 6, 8), np.uint8)
    labels[1, 0, 0], labels[2, :3] = 2, 1
    explain_prediction(
        None, image, labels, None, classes=["a", "b"], name="x.nii", resize=Resize(16), in_channels=3
    )
    (seen, options), *rest = drawn
    assert not rest and seen.shape == (3, 16, 16) and (seen == 2).all()
    assert options == {"classes": ["a", "b"], "multilabel": False, "title": "x.nii, slice 2"}
    many = np.stack([labels == 2, labels == 1])  # multilabel
    explain_prediction(None, image, many, None, classes=["a", "b"], name="x", resize=Resize(16), multilabel=True)
    assert drawn[1][0].shape == (1, 16, 16) and (drawn[1][0] == 2).all() and drawn[1][1]["multilabel"]


def test_a_window_around_the_labels(drawn):
    image = np.random.default_rng(0).random((1, 30, 40), dtype=np.float32)
    labels = np.zeros((30, 40), np.uint8)
    labels[20:24, 34:40] = 1
    explain_prediction(None, image, labels, None, classes=["a", "b"], name="x", roi_size=(8, 10))
    assert np.array_equal(drawn[0][0], image[:, 18:26, 30:40])  # around (21.5, 36.5), up to the border
    assert drawn[0][1]["title"] == "x, rows 18 to 25, columns 30 to 39"


def test_window():
    nothing = np.zeros((9, 20), bool)
    assert window(nothing, (5, 6)) == (slice(2, 7), slice(6, 12))  # the middle of the image
    assert window(nothing, (16, 16)) == (slice(0, 9), slice(2, 18))  # no more than there is
    corner = nothing.copy()
    corner[0, 0] = True
    assert window(corner, (4, 4)) == (slice(0, 4), slice(0, 4))


def test_it_is_written_whole(tmp_path):
    torch.manual_seed(0)
    from cfii import create_model

    model = create_model("resunet", 2, 1, widths=(4, 8))
    image = np.random.default_rng(0).random((1, 16, 16), dtype=np.float32)
    explain_prediction(
        model, image, np.zeros((16, 16)), tmp_path / "a.png", classes=["a", "b"], name="a", roi_size=16
    )
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"] and model.training

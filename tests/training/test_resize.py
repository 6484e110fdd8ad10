import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage

from cfii.training.resize import Resize


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("rule", ["bilinear", "transunet", "legacy_mask_resize"])
def test_nothing_changes_at_the_same_size(rng, rule):
    image, label = rng.random((3, 20, 16), dtype=np.float32), rng.integers(0, 2, (20, 16))
    resize = Resize((20, 16), rule)
    assert np.array_equal(resize.image(image), image) and np.array_equal(resize.label(label), label)


def test_transunet_is_its_code(rng):
    """zoom(image, order=3), zoom(label, order=0), both by scipy's grid; predictions back by order 0."""
    image, label = rng.random((1, 51, 40), dtype=np.float32), rng.integers(0, 9, (51, 40))
    resize = Resize(32, "transunet")
    assert np.array_equal(resize.image(image)[0], ndimage.zoom(image[0], (32 / 51, 32 / 40), order=3))
    assert np.array_equal(resize.label(label), ndimage.zoom(label, (32 / 51, 32 / 40), order=0))
    logits = torch.randn(2, 9, 32, 32)
    expected = ndimage.zoom(logits.argmax(1)[1].numpy(), (51 / 32, 40 / 32), order=0)
    assert np.array_equal(resize.back(logits, (51, 40))[1], expected)


def test_bilinear_keeps_labels_and_means(rng):
    image, label = np.full((3, 100, 70), 0.25, np.float32), rng.integers(0, 5, (100, 70)).astype(np.uint8)
    resize = Resize(33)
    assert torch.allclose(resize.image(image), torch.tensor(0.25))
    resized = resize.label(label)
    assert resized.dtype == torch.uint8 and set(resized.unique().tolist()) <= set(range(5))
    # A checkerboard finer than the new grid becomes grey, not a moiré.
    board = np.indices((128, 128)).sum(0)[None].astype(np.float32) % 2
    assert (Resize(32).image(board) - 0.5).abs()[:, 1:-1, 1:-1].max() < 0.01


def test_legacy_masks_grow_as_in_the_code_in_circulation(rng):
    """cv2.resize of a {0, 255} mask, then > 0."""
    mask = (ndimage.gaussian_filter(rng.normal(size=(200, 150)), 4) > 0.03).astype(np.uint8)
    expected = cv2.resize(255 * mask, (64, 64)) > 0
    legacy = Resize(64, "legacy_mask_resize").label(mask)
    assert (legacy.numpy() != expected).mean() < 1e-3  # cv2 rounds its weights to 1/2048
    assert legacy.sum() > 1.05 * Resize(64).label(mask).sum()
    with pytest.raises(ValueError, match="is for binary masks, got labels up to 2"):
        Resize(8, "legacy_mask_resize").label(mask * 2)


@pytest.mark.parametrize("rule", ["bilinear", "transunet"])
def test_back(rng, rule):
    truth = np.zeros((3, 60, 50), np.uint8)
    truth[0, 10:30, 10:40], truth[1, 5:50, 20:30], truth[2, 30:, :25] = 1, 2, 1
    resize = Resize(48, rule)
    small = resize.label(truth)
    logits = 10 * torch.nn.functional.one_hot(small.long(), 3).movedim(-1, 1).float()
    again = resize.back(logits, (60, 50))
    assert again.dtype == np.uint8 and again.shape == truth.shape and (again == truth).mean() > 0.97
    masks = resize.back(logits - 5, (60, 50), multilabel=True)
    assert masks.dtype == bool and masks.shape == (3, 3, 60, 50) and (masks[:, 1] == (truth == 1)).mean() > 0.97
    one = resize.back(logits[:, 1:2] - 5, (60, 50))
    assert one.shape == truth.shape and set(np.unique(one)) == {0, 1}


def test_wrong_calls_are_named():
    with pytest.raises(ValueError, match="size: expected a positive whole number"):
        Resize((3, 0))
    with pytest.raises(
        ValueError, match="rule: expected one of bilinear, transunet, legacy_mask_resize, got 'x'"
    ):
        Resize(3, "x")

"""Against medpy (whose Dice and HD95 the field's code uses) and MONAI."""

import numpy as np
import pytest
import torch
from medpy.metric import binary as medpy
from monai.metrics import compute_hausdorff_distance, compute_iou
from scipy import ndimage

from cfii.training.metrics import dice, hd95, iou, score, surface_distances


def blobs(rng, shape):
    """A mask: empty, full, noise, or smooth blobs that may touch the edge."""
    kind = rng.integers(8)
    if kind == 0:
        return np.zeros(shape, dtype=bool)
    if kind == 1:
        return rng.random(shape) < rng.choice([0.01, 0.3, 1])
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), rng.uniform(0.5, 3))
    return smooth > rng.normal(0, smooth.std())


def pairs(count, seed=0):
    rng = np.random.default_rng(seed)
    for i in range(count):
        dimensions = 2 + i % 2
        shape = tuple(rng.integers(3, 30 if dimensions == 2 else 16, dimensions))
        spacing = tuple(rng.uniform(0.3, 9, dimensions))
        yield blobs(rng, shape), blobs(rng, shape), spacing


def by_the_code_in_circulation(prediction, truth):
    """TransUNet's rule for empty masks, around medpy."""
    if prediction.any() and truth.any():
        return medpy.dc(prediction, truth), medpy.jc(prediction, truth), medpy.hd95(prediction, truth)
    return (1, 1, 0) if prediction.any() else (0, 0, 0)


def test_paper_protocol_equals_medpy_on_500_pairs():
    empty = 0
    for prediction, truth, spacing in pairs(500):
        expected = by_the_code_in_circulation(prediction, truth)
        empty += not (prediction.any() and truth.any())
        np.testing.assert_allclose(score(prediction, truth, "paper"), expected, rtol=0, atol=1e-9)
        # millimetres do not enter it
        assert score(prediction, truth, "paper", spacing) == score(prediction, truth, "paper")
    assert empty > 50


def test_strict_protocol_equals_medpy_where_nothing_is_empty():
    for prediction, truth, spacing in pairs(200, seed=1):
        if prediction.any() and truth.any():
            expected = (
                *by_the_code_in_circulation(prediction, truth)[:2],
                medpy.hd95(prediction, truth, spacing),
            )
            np.testing.assert_allclose(
                score(prediction, truth, "strict", spacing), expected, rtol=1e-12, atol=1e-9
            )


def test_strict_protocol_never_rewards_a_miss():
    for prediction, truth, spacing in pairs(500, seed=2):
        values = score(prediction, truth, "strict", spacing)
        diagonal = np.linalg.norm(np.multiply(truth.shape, spacing))
        if not prediction.any() and not truth.any():
            assert np.isnan(values).all()
        elif not (prediction.any() and truth.any()):
            assert values[:2] == (0, 0) and values[2] == pytest.approx(diagonal)
        else:
            assert values[2] < diagonal  # whatever is found is nearer than a miss


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy")  # MONAI's call of itself
def test_monai_agrees():
    def batch(mask):
        return torch.from_numpy(mask)[None, None]

    for prediction, truth, spacing in pairs(60, seed=3):
        if not (prediction.any() and truth.any()):
            continue
        assert compute_iou(batch(prediction), batch(truth)).item() == pytest.approx(iou(prediction, truth))
        there, back = surface_distances(prediction, truth, spacing)
        largest = compute_hausdorff_distance(
            batch(prediction), batch(truth), include_background=True, spacing=spacing
        )
        assert max(there.max(), back.max()) == pytest.approx(largest.item(), rel=1e-5)
        # MONAI's own 95 % is the larger of the two directions', of the same distances.
        theirs = compute_hausdorff_distance(
            batch(prediction), batch(truth), include_background=True, spacing=spacing, percentile=95
        )
        ours = max(np.percentile(there, 95), np.percentile(back, 95))
        assert theirs.item() == pytest.approx(ours, rel=1e-5)


def test_known_values():
    a, b = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    a[2, 2], b[2, 5] = True, True
    assert dice(a, a) == iou(a, a) == 1 and dice(a, b) == iou(a, b) == 0
    assert hd95(a, a) == 0 and hd95(a, b) == 3 and hd95(a, b, (1, 0.5)) == 1.5


def test_wrong_calls_are_named():
    mask = np.ones((3, 3), bool)
    with pytest.raises(ValueError, match="prediction and truth: expected one shape"):
        score(mask, mask[:2])
    with pytest.raises(ValueError, match="protocol: expected one of paper, strict, got 'loose'"):
        score(mask, mask, "loose")
    with pytest.raises(ValueError, match="spacing: expected 2 numbers"):
        score(mask, mask, spacing=(1, 1, 1))
    with pytest.raises(ValueError, match="empty"):
        hd95(mask, ~mask)

import numpy as np
import pytest
import torch
from scipy import ndimage

from cfii.training.augment import RotateFlip, rotate


@pytest.mark.parametrize("angle", [-20, -7, 0, 13, 19])
@pytest.mark.parametrize("shape", [(40, 40), (41, 56)])
def test_rotation_is_scipys(angle, shape):
    plane = np.random.default_rng(0).random(shape)
    expected = ndimage.rotate(plane, angle, order=0, reshape=False)
    ours = rotate(torch.from_numpy(plane)[None, None], torch.tensor([angle]), "nearest")[0, 0].numpy()
    assert (ours == expected).mean() > 0.97  # ties between two pixels may go either way, also at the edge
    smooth = ndimage.gaussian_filter(np.pad(plane[9:-9, 9:-9], 9), 1)  # where edges play no part
    expected = ndimage.rotate(smooth, angle, order=1, reshape=False)
    ours = rotate(torch.from_numpy(smooth)[None, None], torch.tensor([angle]), "bilinear")[0, 0].numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-2)


def batch(count=64, shape=(24, 24)):
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 4, (count, *shape)))
    return labels[:, None].repeat(1, 2, 1, 1).float() / 3, labels


def test_image_and_label_move_together():
    images, labels = batch()
    new, moved = RotateFlip(legacy_nearest=True)(images, labels, range(64), epoch=0)
    assert torch.equal((new[:, 0] * 3).round().long(), moved) and moved.dtype == labels.dtype
    masks = torch.nn.functional.one_hot(labels, 4).movedim(-1, 1).byte()
    _, again = RotateFlip(legacy_nearest=True)(images, masks, range(64), epoch=0)
    assert again.dtype == torch.uint8 and torch.equal(
        again[:, 1:].bool(), torch.stack([moved == i for i in (1, 2, 3)], 1)
    )


def test_what_happens_depends_on_seed_epoch_and_sample_alone():
    images, labels = batch()
    whole, _ = RotateFlip(seed=3)(images, labels, range(64), epoch=2)
    part, _ = RotateFlip(seed=3)(images[40:50], labels[40:50], range(40, 50), epoch=2)
    assert torch.equal(whole[40:50], part)
    for seed, epoch in ((4, 2), (3, 1)):
        other, _ = RotateFlip(seed=seed)(images, labels, range(64), epoch=epoch)
        assert not torch.equal(whole, other)


def test_no_epoch_repeats_another():
    choose = RotateFlip(seed=0).choose
    drawn = [tuple(choose(index, epoch) for index in range(50)) for epoch in range(40)]
    assert len(set(drawn)) == 40


def test_frequencies_are_transunets():
    choices = [RotateFlip(seed=1).choose(index, 0) for index in range(20000)]
    flipped = sum(axis is not None for _, axis, _ in choices) / 20000
    rotated = sum(bool(angle) for _, _, angle in choices) / 20000
    assert flipped == pytest.approx(0.5, abs=0.02) and rotated == pytest.approx(0.25 * 39 / 40, abs=0.02)
    assert {angle for _, _, angle in choices} == set(range(-20, 20))
    assert {(k, axis) for k, axis, _ in choices} == {
        (0, None),
        *((k, axis) for k in range(4) for axis in (-1, -2)),
    }


def test_sizes_that_are_not_square():
    images, labels = batch(shape=(24, 36))
    new, moved = RotateFlip(legacy_nearest=True)(images, labels, range(64), epoch=0)
    assert new.shape == images.shape and torch.equal((new[:, 0] * 3).round().long(), moved)


def test_the_input_is_left_alone():
    images, labels = batch()
    before = images.clone()
    RotateFlip()(images, labels, range(64), epoch=0)
    assert torch.equal(images, before)

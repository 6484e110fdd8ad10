import pytest
import torch

from cfii.training.phantom import CLASSES, Phantom


def test_slices():
    data = Phantom(30, size=64, seed=5)
    assert len(data) == 30 and len(list(data)) == 30
    image, labels = data[3]
    assert image.shape == (1, 64, 64) and image.dtype == torch.float32
    assert labels.shape == (64, 64) and labels.dtype == torch.int64
    seen = set(torch.cat([labels.unique() for _, labels in data]).tolist())
    assert seen == set(range(len(CLASSES)))  # every class occurs


def test_a_slice_depends_on_seed_and_index_alone():
    for a, b in zip(Phantom(9, 32, seed=1)[2], Phantom(5, 32, seed=1)[2], strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(Phantom(9, 32, seed=1)[2][0], Phantom(9, 32, seed=2)[2][0])
    assert not torch.equal(Phantom(9, 32, seed=1)[2][0], Phantom(9, 32, seed=1)[3][0])


def test_wrong_calls_are_named():
    with pytest.raises(ValueError, match="length and size"):
        Phantom(0)
    with pytest.raises(IndexError):
        Phantom(2)[2]

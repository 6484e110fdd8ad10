import numpy as np
import pytest

from cfii.training.sets import open_set
from cfii.training.sets.phantom import CLASSES, Phantom


def test_slices():
    data = Phantom(30, size=64, seed=5)
    assert len(data) == 30 and len(list(data)) == 30
    case = data[3]
    assert case.image.shape == (1, 64, 64) and case.image.dtype == np.float32
    assert case.label.shape == (64, 64) and case.label.dtype == np.uint8
    seen = set(np.concatenate([np.unique(case.label) for case in data]).tolist())
    assert seen == set(range(len(CLASSES)))  # every class occurs


def test_a_slice_depends_on_seed_and_index_alone():
    one, same = Phantom(9, 32, seed=1)[2], Phantom(5, 32, seed=1)[2]
    assert np.array_equal(one.image, same.image) and np.array_equal(one.label, same.label)
    assert not np.array_equal(one.image, Phantom(9, 32, seed=2)[2].image)
    assert not np.array_equal(one.image, Phantom(9, 32, seed=1)[3].image)


def test_splits():
    sets = {split: open_set("phantom", None, split, size=32) for split in ("train", "val", "test")}
    assert [len(cases) for cases in sets.values()] == [400, 32, 64]
    assert not np.array_equal(sets["train"][0].image, sets["test"][0].image)


def test_wrong_calls_are_named():
    with pytest.raises(ValueError, match="length and size"):
        Phantom(0)
    with pytest.raises(IndexError):
        Phantom(2)[2]

import numpy as np
import pytest
from cases_in_memory import Given

from cfii.training.cases import Slices, Subset, hold_out
from cfii.training.files import DataError

IMAGE = np.zeros((1, 4, 5), np.float32)
LABEL = np.zeros((4, 5), np.int64)


def changed(array, value, dtype=None):
    array = array.astype(dtype or array.dtype)
    array[..., 0, 0] = value
    return array


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (IMAGE, LABEL[:3], "expected labels of 4 x 5, like their image, found 3 x 5"),
        (IMAGE, changed(LABEL, 2), "expected labels 0 to 1, found also 2"),
        (IMAGE, changed(LABEL, -1), "expected labels 0 to 1, found also -1"),
        (IMAGE, changed(LABEL, 0.5, float), "expected whole numbers"),
        (IMAGE, changed(LABEL, np.nan, float), "expected whole numbers"),
        (IMAGE, LABEL.astype(str), "expected whole numbers"),
        (changed(IMAGE, np.nan), LABEL, "expected finite values"),
        (changed(IMAGE, np.inf), LABEL, "expected finite values"),
        (IMAGE[0], LABEL, "expected an image of 2 or 3 dimensions"),
        (np.zeros((1, 0, 5), np.float32), LABEL, "expected an image of 2 or 3 dimensions"),
        (np.zeros((3, 4, 5), np.float32), LABEL, "expected 1 channels"),
    ],
)
def test_what_is_read_is_checked(image, label, message):
    cases = Given([IMAGE, image], [LABEL, label])
    assert cases[0].label.dtype == np.uint8
    with pytest.raises(DataError, match=rf"case1\.npz: {message}"):
        cases[1]


def test_float_labels_of_whole_numbers_are_labels():
    label = Given([IMAGE], [changed(LABEL, 1, np.float32)])[0].label
    assert label.dtype == np.uint8 and label.sum() == 1


def test_multilabel():
    label = np.zeros((2, 4, 5), np.uint8)
    label[:, 1, 1] = 1
    assert Given([IMAGE], [label], multilabel=True)[0].label.dtype == bool
    with pytest.raises(DataError, match="expected labels of 2 x 4 x 5"):
        Given([IMAGE], [LABEL], multilabel=True)[0]


def test_iteration_ends():
    assert len(list(Given([IMAGE] * 3, [LABEL] * 3))) == 3


def volumes(count, **options):
    rng = np.random.default_rng(0)
    images = [rng.random((2, 3 + i, 4, 5), dtype=np.float32) for i in range(count)]
    labels = [(image[0] > 0.5).astype(np.uint8) for image in images]
    return Given(images, labels, spacing=(9.0, 1.0, 2.0), **options)


def test_slices():
    whole = volumes(2, subjects=["a", "b"])
    slices = Slices(whole)
    assert len(slices) == 7 and slices.names[3] == "case1_slice_0" and slices.subjects == ["a"] * 3 + ["b"] * 4
    case = slices[5]
    assert np.array_equal(case.image, whole[1].image[:, 2]) and np.array_equal(case.label, whole[1].label[2])
    assert case.spacing == (1.0, 2.0)


def test_hold_out_keeps_subjects_together():
    subjects = [f"patient{i // 4}" for i in range(40)]
    cases = Given([IMAGE] * 40, [LABEL] * 40, subjects=subjects)
    rest, held = hold_out(cases, 0.3)
    assert len(rest) == 28 and len(held) == 12
    assert not set(rest.subjects) & set(held.subjects)
    assert sorted(rest.names + held.names) == sorted(cases.names)
    assert hold_out(cases, 0.3)[1].names == held.names != hold_out(cases, 0.3, seed=1)[1].names
    assert held[0].name == held.names[0]
    with pytest.warns(UserWarning, match=r"one subject \(patient0\)"):
        rest, held = hold_out(Subset(cases, range(4)), 0.5)
    assert len(rest) == len(held) == 2 and not set(rest.names) & set(held.names)
    with pytest.raises(DataError, match="at least 2 cases, found 1"):
        hold_out(Subset(cases, [0]), 0.5)
    with pytest.raises(ValueError, match="fraction"):
        hold_out(cases, 1)

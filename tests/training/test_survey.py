import numpy as np
import pytest
from cases_in_memory import Given

from cfii.training.survey import survey


def test_what_a_set_holds():
    rng = np.random.default_rng(0)
    images = [rng.random((1, 10 + i, 8), dtype=np.float32) for i in range(4)]
    labels = [np.zeros(image.shape[1:], np.uint8) for image in images]
    labels[0][:5] = 1
    labels[3][0, 0] = 9
    images.append(images[1])
    labels.append(labels[1])
    calls = []
    cases = Given(images, labels, ("background", "organ", "other"), spacing=(0.5, 0.7), subjects=list("aabbb"))
    found = survey(cases, lambda: calls.append(1))
    assert found.cases == 4 and len(calls) == 5 and found.patients == {"a", "b"}
    assert found.errors == ["case3.npz: expected labels 0 to 2, found also 9"]
    assert found.size_text() == "10 x 8 to 12 x 8" and found.spacing_text() == "0.5 x 0.7 mm"
    assert found.pixels.tolist() == [80 - 40 + 88 + 96 + 88, 40, 0] and found.present.tolist() == [4, 1, 0]
    assert found.absent == ["other"] and found.total_pixels == 352
    assert 0 <= found.values[0] < 0.1 and 0.9 < found.values[1] <= 1
    assert sorted(found.planes.values()) == [1, 1, 2] and len(found.examples) == 4


def test_multilabel_and_missing_labels():
    image = np.zeros((1, 4, 4), np.float32)
    found = survey(Given([image], [np.ones((2, 4, 4), bool)], ("a", "b"), multilabel=True))
    assert found.pixels.tolist() == [16, 16] and found.patients == set() and not found.planes
    assert found.spacing_text() == "not in the files"
    found = survey(Given([image], [None]))
    assert found.total_pixels == 0 and found.cases == 1


@pytest.mark.parametrize("shapes", [[(1, 4, 4), (1, 3, 4, 4)]])
def test_mixed_dimensions_do_not_break_the_summary(shapes):
    images = [np.zeros(shape, np.float32) for shape in shapes]
    found = survey(Given(images, [None, None]))
    assert found.size_text() == "4 x 4"

import numpy as np
import pytest
from cases_in_memory import Given
from PIL import Image

from cfii.training.pictures import bars, curves, mosaic, overlays
from cfii.training.results import Results


def blocks(count, shape=(24, 20), multilabel=False):
    rng = np.random.default_rng(0)
    images, labels = [], []
    for i in range(count):
        label = np.zeros(shape, np.uint8)
        label[..., 4 : 8 + i, 5:15] = 1 + i % 2
        images.append((0.3 * label + 0.2 * rng.random(shape)).astype(np.float32)[None])
        labels.append(np.stack([label == 1, label == 2]) if multilabel else label)
    classes = ("one", "two") if multilabel else ("background", "one", "two")
    return Given(images, labels, classes, multilabel)


def named(cases):
    return lambda name: cases[cases.names.index(name)]


def colours(file):
    with Image.open(file) as image:
        return len(np.unique(np.array(image.convert("RGB")).reshape(-1, 3), axis=0))


@pytest.mark.parametrize("shape", [(24, 20), (5, 24, 20)])
@pytest.mark.parametrize("multilabel", [False, True])
def test_every_kind_of_case(tmp_path, shape, multilabel):
    cases = blocks(6, shape, multilabel)
    mosaic(list(cases), cases.classes, tmp_path / "mosaic.png", multilabel=multilabel)
    results = Results(cases.classes, multilabel=multilabel)
    for i, case in enumerate(cases):
        results.add(case.name, np.roll(case.label, i, axis=-2), case.label)
    overlays(
        results,
        named(cases),
        lambda case: np.roll(case.label, 1, axis=-2),
        cases.classes,
        tmp_path / "overlays.png",
    )
    bars(results, tmp_path / "bars.svg")
    assert colours(tmp_path / "mosaic.png") > 50 and colours(tmp_path / "overlays.png") > 50
    assert "HD95 (voxels)" in (tmp_path / "bars.svg").read_text() or (tmp_path / "bars.svg").stat().st_size > 5000


def test_worst_median_and_best_are_asked_for(tmp_path):
    cases = blocks(5)
    results, asked = Results(cases.classes), []
    for i, case in enumerate(cases):
        results.add(case.name, np.roll(case.label, 2 * i, axis=0), case.label)
    overlays(
        results,
        named(cases),
        lambda case: asked.append(case.name) or case.label,
        cases.classes,
        tmp_path / "a.png",
    )
    assert asked == ["case4", "case2", "case0"]
    with pytest.raises(ValueError, match="expected at least one case with a Dice"):
        overlays(Results(cases.classes), named(cases), None, cases.classes, tmp_path / "b.png")


def test_one_case_and_no_labels(tmp_path):
    cases = Given(blocks(1).images, [None])
    mosaic(list(cases), cases.classes, tmp_path / "a.png")
    cases = blocks(1)
    results = Results(cases.classes)
    results.add("case0", cases[0].label, cases[0].label)
    overlays(results, named(cases), lambda case: case.label, cases.classes, tmp_path / "b.png")
    bars(results, tmp_path / "c.png")
    assert colours(tmp_path / "b.png") > 50 and colours(tmp_path / "c.png") > 20


def test_curves(tmp_path):
    history = {
        "train_loss": [(0, 2.0), (1, 1.0)],
        "val_loss": [(0, 2.5), (1, 1.5)],
        "val_dice": [(0, 0.1), (1, 0.4)],
    }
    curves(history, tmp_path / "a.png")
    assert colours(tmp_path / "a.png") > 30

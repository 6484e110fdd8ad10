import numpy as np
import pytest
from PIL import Image

from cfii.training.files import DataError, NoSuchSplit
from cfii.training.sets.monuseg import monuseg

SQUARE = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in ((5, 5), (9, 5), (9, 12), (5, 12)))
REGION = f"<Region><Vertices>{SQUARE}</Vertices></Region>"
XML = f"<Annotations><Annotation><Regions>{REGION}</Regions></Annotation></Annotations>"


@pytest.fixture
def original(tmp_path):
    train = tmp_path / "MoNuSeg 2018 Training Data"
    places = [(train / "Tissue Images", train / "Annotations"), (tmp_path / "MoNuSegTestData",) * 2]
    rng = np.random.default_rng(0)
    for images, polygons in places:
        for folder in (images, polygons):
            folder.mkdir(parents=True, exist_ok=True)
        for name in ("TCGA-1", "TCGA-2"):
            Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(images / f"{name}.tif")
            (polygons / f"{name}.xml").write_text(XML)
    return tmp_path


def test_the_original_archives(original):
    for root in (original, original / "MoNuSeg 2018 Training Data"):
        cases = monuseg(root)
        assert cases.names == ["TCGA-1", "TCGA-2"] and cases[0].image.shape == (3, 30, 40)
        expected = np.zeros((30, 40), np.uint8)
        expected[5:13, 5:10] = 1
        assert np.array_equal(cases[1].label, expected)
    assert len(monuseg(original, "test")) == len(monuseg(original / "MoNuSegTestData", "test")) == 2
    with pytest.raises(NoSuchSplit, match="expected Val_Folder/img"):
        monuseg(original, "val")
    with pytest.raises(NoSuchSplit, match="expected Train_Folder/img"):
        monuseg(original / "MoNuSegTestData")
    (original / "MoNuSegTestData" / "TCGA-2.xml").unlink()
    with pytest.raises(DataError, match=r"TCGA-2\.tif: expected a mask TCGA-2"):
        monuseg(original, "test")


def test_every_file_loads(real_data):
    for root, counts in (("monuseg", (2, 1, 1)), ("paper224/MoNuSeg", (24, 6, 14))):
        for split, count in zip(("train", "val", "test"), counts, strict=True):
            cases = list(monuseg(real_data / root, split))
            assert len(cases) == count and all(0.02 < case.label.mean() < 0.6 for case in cases)


def test_masks_are_binary(tmp_path):
    for name in ("img", "labelcol"):
        (tmp_path / "Train_Folder" / name).mkdir(parents=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "Train_Folder" / "img" / "a.tif")
    for values, good in (((0, 1), True), ((0, 255), True), ((0, 0), True), ((0, 128), False), ((1, 255), False)):
        mask = np.full((4, 4), values[0], np.uint8)
        mask[1:3] = values[1]
        Image.fromarray(mask).save(tmp_path / "Train_Folder" / "labelcol" / "a.png")
        if good:
            assert np.array_equal(monuseg(tmp_path)[0].label, mask > 0)
        else:
            with pytest.raises(DataError, match=r"a\.png: expected a mask of 0 and 255 \(or 0 and 1\), found"):
                monuseg(tmp_path)[0]

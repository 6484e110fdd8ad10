import numpy as np
import pytest

from cfii.training.files import NoSuchSplit
from cfii.training.sets.glas import glas


def test_both_layouts_give_the_same_pixels(real_data):
    """The re-encoded Warwick files hold Train 1 and 7 and Test 61 (testB_1)."""
    folders = {split: glas(real_data / "glas", split) for split in ("train", "test")}
    warwick = {split: glas(real_data / "glas" / "warwick_layout_reencoded", split) for split in ("train", "test")}
    full = {split: glas(real_data / "paper224" / "GlaS", split) for split in ("train", "test")}
    assert warwick["train"].names == ["train_1", "train_7"] and warwick["test"].names == ["testB_1"]
    for split, name, other in (("train", "1", "train_1"), ("test", "61", "testB_1")):
        a = folders[split][folders[split].names.index(name)]
        b = warwick[split][warwick[split].names.index(other)]
        assert np.array_equal(a.image, b.image) and np.array_equal(a.label, b.label)
        assert set(np.unique(a.label)) == {0, 1}
        # and the resized copy shows the same glands
        assert abs(full[split][full[split].names.index(name)].label.mean() - a.label.mean()) < 0.01
    with pytest.raises(NoSuchSplit, match="Val_Folder"):
        glas(real_data / "glas", "val")
    with pytest.raises(NoSuchSplit, match="val_1"):
        glas(real_data / "glas" / "warwick_layout_reencoded", "val")


def test_every_file_loads(real_data):
    for root, counts in (("glas", (4, 2)), ("paper224/GlaS", (85, 80))):
        for split, count in zip(("train", "test"), counts, strict=True):
            cases = list(glas(real_data / root, split))
            assert len(cases) == count and all(case.image.shape[1:] == case.label.shape for case in cases)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(
        NoSuchSplit, match="expected Train_Folder/img and Train_Folder/labelcol, or files train_1"
    ):
        glas(tmp_path)

import h5py
import numpy as np
import pytest

from cfii.training.files import DataError, NoSuchSplit
from cfii.training.sets.synapse import CLASSES, synapse


def test_every_file_loads(real_data):
    root = real_data / "multiorgan_ct" / "synapse_layout_derived"
    train, test = synapse(root), synapse(root, "test")
    assert len(train) == 30 and len(test) == 1 and len(train.classes) == len(CLASSES) == 9
    volume = test[0]
    assert volume.shape == (30, 101, 122) and volume.label.max() == 8 and volume.name == "case9001"
    for z, case in enumerate(train):
        assert np.array_equal(case.image, volume.image[:, z]) and np.array_equal(case.label, volume.label[z])
    assert set(train.subjects) == set(test.subjects) == {"case9001"}
    with pytest.raises(NoSuchSplit, match="Synapse has train and test, no 'val'"):
        synapse(root, "val")


@pytest.fixture
def layout(tmp_path):
    """Labels as in BTCV: 0 to 13. Lists beside the code, not the data, as TransUNet has them."""
    root = tmp_path / "project" / "data" / "Synapse"
    for folder in ("train_npz", "test_vol_h5"):
        (root / folder).mkdir(parents=True)
    lists = tmp_path / "project" / "lists" / "lists_Synapse"
    lists.mkdir(parents=True)
    label = np.arange(14).reshape(2, 7).repeat(3, 0).astype(np.float32)
    np.savez(root / "train_npz" / "case0005_slice000.npz", image=label / 13, label=label)
    with h5py.File(root / "test_vol_h5" / "case0008.npy.h5", "w") as data:
        data["image"], data["label"] = label[None] / 13, label[None]
    (lists / "train.txt").write_text("case0005_slice000\n")
    (lists / "test_vol.txt").write_text("case0008\n")
    return root


def test_both_orders_of_labels(layout):
    with pytest.raises(DataError, match=r"slice000\.npz: expected labels 0 to 8, found also 9, 10, 11, 12, 13"):
        synapse(layout)[0]
    label = synapse(layout, label_order="btcv")[0].label
    raw = np.arange(14).reshape(2, 7).repeat(3, 0)
    organs = {
        1: "spleen",
        2: "right kidney",
        3: "left kidney",
        4: "gallbladder",
        6: "liver",
        7: "stomach",
        8: "aorta",
    }
    for number, name in {**organs, 11: "pancreas"}.items():
        assert (label[raw == number] == CLASSES.index(name)).all()
    assert not label[np.isin(raw, (0, 5, 9, 10, 12, 13))].any()
    assert synapse(layout, "test", label_order="btcv")[0].label.max() == 8
    with pytest.raises(ValueError, match="label_order: expected 'transunet' or 'btcv'"):
        synapse(layout, label_order="EMCAD")
    with np.load(layout / "train_npz" / "case0005_slice000.npz") as data:
        np.savez(layout / "train_npz" / "case0005_slice000.npz", image=data["image"], label=data["label"] + 1)
    with pytest.raises(DataError, match="expected BTCV's labels 0 to 13"):
        synapse(layout, label_order="btcv")[0]


def test_what_is_missing_is_named(layout, tmp_path):
    (layout / "train_npz" / "case0005_slice000.npz").unlink()
    with pytest.raises(DataError, match=r"case0005_slice000\.npz: expected this file, as .*train\.txt lists it"):
        synapse(layout)
    with pytest.raises(NoSuchSplit, match=r"expected the list train\.txt"):
        (tmp_path / "empty").mkdir()
        synapse(tmp_path / "empty")

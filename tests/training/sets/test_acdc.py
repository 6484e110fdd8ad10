import shutil

import numpy as np
import pytest

from cfii.training.arrays import read_arrays
from cfii.training.files import DataError, NoSuchSplit
from cfii.training.sets.acdc import acdc, from_nifti


def test_nifti_gives_the_slices_and_volumes_of_h5(real_data, tmp_path):
    """WSL4MIS's files were made from the official ones: labels exactly, images to rounding."""
    slices, made = acdc(real_data / "acdc_h5"), acdc(real_data / "acdc_nifti")
    assert sorted(slices.names) == sorted(made.names) and len(slices) == 86
    for case in slices:
        other = made[made.names.index(case.name)]
        assert np.array_equal(case.label, other.label), case.name
        np.testing.assert_allclose(case.image, other.image, rtol=0, atol=1e-6, err_msg=case.name)
        assert other.spacing[0] == other.spacing[1] > 1
    (tmp_path / "val.list").write_text("patient001\n")
    (tmp_path / "training").symlink_to(real_data / "acdc_nifti" / "training")
    volumes = from_nifti(tmp_path, "val")
    assert volumes.names == ["patient001_frame01", "patient001_frame12"]
    for case in volumes:
        file = real_data / "acdc_h5" / "ACDC_training_volumes" / f"{case.name}.h5"
        image, label = read_arrays(file, ("image", "label"))
        assert np.array_equal(case.label, label) and case.spacing == pytest.approx((10, 1.5625, 1.5625))
        np.testing.assert_allclose(case.image[0], image, rtol=0, atol=1e-6)


def test_every_file_loads(real_data):
    for root, split, count, patients in (
        ("acdc_h5", "train", 86, 4),
        ("acdc_h5", "test", 2, 1),
        ("acdc_nifti", "train", 86, 4),
        ("acdc_nifti", "test", 2, 1),
        ("paper224/ACDC", "train", 1314, 70),
        ("paper224/ACDC", "val", 16, 8),
    ):
        cases = acdc(real_data / root, split)
        assert len(cases) == count and len(set(cases.subjects)) == patients
        for case in cases:
            assert case.label.max() <= 3 and case.image.min() >= 0 and case.image.max() <= 1
            assert len(case.shape) == (2 if split == "train" else 3)


@pytest.fixture
def mtunet(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "lists_ACDC").mkdir()
    for folder, shape in (("train", (20, 16)), ("valid", (20, 16)), ("test", (5, 20, 16))):
        (tmp_path / folder).mkdir()
        names = [f"case_00{i}_volume_ED.npz" for i in range(2)]
        (tmp_path / "lists_ACDC" / f"{folder}.txt").write_text("\n".join(names))
        for name in names:
            image = rng.normal(size=shape).astype(np.float32)
            np.savez(tmp_path / folder / name, img=image, label=(image > 0) * 3)
    return tmp_path


def test_mtunet(mtunet):
    for split, dimensions in (("train", 2), ("val", 2), ("test", 3)):
        cases = acdc(mtunet, split)
        assert (
            len(cases) == 2 and len(cases[1].shape) == dimensions and cases.subjects == ["case_000", "case_001"]
        )
    (mtunet / "lists_ACDC" / "valid.txt").unlink()
    with pytest.raises(NoSuchSplit, match=r"valid\.txt: expected this list"):
        acdc(mtunet, "val")


def test_what_is_missing_is_named(tmp_path, real_data):
    with pytest.raises(
        NoSuchSplit, match=r"expected train_slices\.list and ACDC_training_slices/, or lists_ACDC/"
    ):
        acdc(tmp_path)
    root = tmp_path / "nifti"
    shutil.copytree(real_data / "acdc_nifti" / "training" / "patient001", root / "training" / "patient001")
    folder = root / "training" / "patient001"
    (folder / "patient001_frame12_gt.nii.gz").unlink()
    with pytest.raises(DataError, match=r"patient001_frame12_gt\.nii\.gz: expected this file, as .*Info\.cfg"):
        acdc(root)
    (folder / "Info.cfg").write_text("ED: 1\n")
    with pytest.raises(DataError, match=r"Info\.cfg: expected lines such as"):
        acdc(root)
    (root / "train.list").write_text("patient002\n")
    with pytest.raises(DataError, match="expected the folder patient002"):
        acdc(root)

"""Volumes in any orientation: the network sees one, the file keeps its own."""

import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.orientations import apply_orientation, inv_ornt_aff

from cfii.training.files import DataError
from cfii.training.inference import predict_file
from cfii.training.nifti import NiftiFiles, read_nifti, write_nifti
from cfii.training.sets.synapse import synapse

FLIPS = list(itertools.product((1, -1), repeat=3))
PERMUTATIONS = [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1)]
SPACING = (0.8, 1.5, 5.0)


@pytest.fixture
def stored():
    """A volume as an axial scanner with a tilted gantry stores it: (X, Y, Z) in LPS."""
    rng = np.random.default_rng(0)
    values = rng.integers(-1000, 1000, (12, 10, 7)).astype(np.int16)
    tilt = np.array([[1, 0, 0], [0, np.cos(0.2), -np.sin(0.2)], [0, np.sin(0.2), np.cos(0.2)]])
    affine = np.eye(4)
    affine[:3, :3] = tilt @ np.diag(np.multiply(SPACING, (-1, -1, 1)))
    affine[:3, 3] = (30, -20, 100)
    return nib.Nifti1Image(values, affine)


def reoriented(image, permutation, flips):
    """The same volume, in the same place, stored in another order."""
    change = np.stack([permutation, flips], axis=1).astype(float)
    return type(image)(
        apply_orientation(np.asarray(image.dataobj), change), image.affine @ inv_ornt_aff(change, image.shape)
    )


class Threshold(torch.nn.Module):
    """Foreground where a voxel is brighter than the one to its right and below: direction matters."""

    def forward(self, x):
        shifted = torch.roll(x, (1, 1), (2, 3)) + torch.linspace(-0.2, 0.2, x.shape[2])[:, None]
        return torch.cat([shifted - x, x - shifted], 1)


@pytest.mark.parametrize("permutation", PERMUTATIONS)
@pytest.mark.parametrize("flips", FLIPS)
def test_a_prediction_lies_over_its_image(tmp_path, stored, permutation, flips):
    reference, source = tmp_path / "reference.nii", tmp_path / "image.nii.gz"
    nib.save(stored, reference)
    image = reoriented(stored, permutation, flips)
    nib.save(image, source)
    for file in (reference, source):
        predict_file(Threshold(), file, file.with_name(f"out_{file.name}"))
    out = nib.load(tmp_path / "out_image.nii.gz")
    assert out.shape == image.shape and out.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(out.affine, nib.load(source).affine)
    assert out.header.get_zooms() == nib.load(source).header.get_zooms()
    assert nib.aff2axcodes(out.affine) == nib.aff2axcodes(image.affine)
    # The same voxels of the body get the same labels, however they are stored.
    expected = reoriented(nib.load(tmp_path / "out_reference.nii"), permutation, flips)
    np.testing.assert_array_equal(np.asarray(out.dataobj), np.asarray(expected.dataobj))
    assert 0.2 < np.asarray(out.dataobj).mean() < 0.8


def test_slices_lie_as_radiologists_look_at_them(tmp_path, stored):
    nib.save(stored, tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii")
    assert volume.values.shape == (1, 7, 10, 12) and volume.spacing == pytest.approx(SPACING[::-1])
    np.testing.assert_array_equal(volume.values[0], np.asarray(stored.dataobj).transpose(2, 1, 0))


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("big", [False, True])
def test_headers_are_kept(tmp_path, stored, kind, big):
    header = kind.header_class(endianness=">" if big else "<")
    image = kind(np.asarray(stored.dataobj), stored.affine, header)
    image.header.set_qform(stored.affine, code=1)
    image.header.set_sform(stored.affine, code=4)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"scanner"
    image.header.set_slope_inter(2, -7)
    nib.save(image, tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii")
    labels = np.arange(volume.values[0].size).reshape(volume.values[0].shape) % 5
    write_nifti(tmp_path / "b.nii.gz", labels, volume)
    out = nib.load(tmp_path / "b.nii.gz")
    assert type(out) is kind and out.header["qform_code"] == 1 and out.header["sform_code"] == 4
    assert out.header["descrip"].item().startswith(b"scanner") and out.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_array_equal(np.asarray(out.dataobj).T, labels)
    np.testing.assert_allclose(out.header.get_qform(), stored.affine, atol=1e-3)


def test_the_pixel_size_counts_where_the_affine_disagrees(tmp_path, stored):
    """ACDC's official files: a unit affine beside the true pixdim."""
    image = nib.Nifti1Image(np.asarray(stored.dataobj), np.diag((-1, -1, 1, 1)))
    image.header["pixdim"][1:4] = SPACING
    nib.save(image, tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii")
    assert volume.spacing == pytest.approx(SPACING[::-1])
    write_nifti(tmp_path / "b.nii", np.zeros(volume.values.shape[1:], np.uint8), volume)
    out = nib.load(tmp_path / "b.nii")
    assert out.header.get_zooms() == pytest.approx(SPACING) and (out.affine == image.affine).all()


def test_channels_and_multilabel(tmp_path, stored):
    values = np.stack([np.asarray(stored.dataobj)] * 3, axis=3)
    values[..., 1] += 5
    nib.save(nib.Nifti1Image(values, stored.affine), tmp_path / "a.nii.gz")
    volume = read_nifti(tmp_path / "a.nii.gz")
    assert volume.values.shape == (3, 7, 10, 12) and (volume.values[1] - volume.values[0] == 5).all()
    masks = np.random.default_rng(0).random((2, 7, 10, 12)) > 0.5
    write_nifti(tmp_path / "b.nii.gz", masks, volume)
    out = nib.load(tmp_path / "b.nii.gz")
    assert out.shape == (12, 10, 7, 2)
    np.testing.assert_array_equal(np.asarray(out.dataobj)[..., 1], masks[1].transpose(2, 1, 0))


def test_intensities(tmp_path, stored):
    nib.save(stored, tmp_path / "a.nii")
    classes = ("background", "organ")
    case = NiftiFiles([tmp_path / "a.nii"], [None], ["a"], classes, window=(-125, 275))[0]
    raw = np.asarray(stored.dataobj).transpose(2, 1, 0)
    np.testing.assert_allclose(case.image[0], (raw.clip(-125, 275) + 125) / 400, atol=1e-6)
    case = NiftiFiles([tmp_path / "a.nii"], [None], ["a"], classes)[0]
    low, high = raw.min(), np.sort(raw.ravel())[int(np.ceil(0.99 * raw.size)) - 1]
    np.testing.assert_allclose(case.image[0], (raw.clip(low, high) - low) / (high - low), atol=1e-6)
    nib.save(nib.Nifti1Image(np.full((3, 3, 3), 7.0), np.eye(4)), tmp_path / "b.nii")
    assert (NiftiFiles([tmp_path / "b.nii"], [None], ["b"], classes)[0].image == 0).all()
    with pytest.raises(ValueError, match="window: expected None or"):
        NiftiFiles([], [], [], classes, window=(3, 3))


def test_damage_is_named(tmp_path, stored):
    good = tmp_path / "good.nii.gz"
    nib.save(stored, good)
    data = gzip.decompress(good.read_bytes())

    def fails(name, content, message):
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}: .*{message}"):
            read_nifti(file)

    fails("half.nii.gz", good.read_bytes()[:-900], "expected a NIfTI file")
    flipped = bytearray(good.read_bytes())
    flipped[len(flipped) // 2] ^= 16
    fails("flipped.nii.gz", bytes(flipped), "expected a NIfTI file")
    fails("half.nii", data[:-900], "expected a NIfTI file")
    fails("text.nii", b"hello" * 200, "found other bytes where its header should be")
    fails("empty.nii", b"", "found other bytes")
    huge = bytearray(data)
    huge[42:48] = b"\xff\x7f" * 3
    fails("huge.nii", bytes(huge), "expected at most")
    nowhere = bytearray(data)
    nowhere[280:328] = bytes(48)  # the affine's rows
    fails("nowhere.nii", bytes(nowhere), "expected an affine that can be inverted")
    nib.save(nib.Nifti1Image(np.zeros((4, 4), np.uint8), np.eye(4)), tmp_path / "flat.nii")
    fails("flat2.nii", (tmp_path / "flat.nii").read_bytes(), "expected a volume")


def test_labels_elsewhere_are_refused(tmp_path, stored):
    nib.save(stored, tmp_path / "a.nii")
    labels = np.zeros(stored.shape, np.uint8)
    moved = stored.affine.copy()
    moved[0, 3] += 5
    nib.save(nib.Nifti1Image(labels, moved), tmp_path / "moved.nii")
    nib.save(nib.Nifti1Image(labels[:, :, :5], stored.affine), tmp_path / "short.nii")
    for name, message in (("moved", "the labels lie elsewhere"), ("short", "expected labels of 7 x 10 x 12")):
        cases = NiftiFiles([tmp_path / "a.nii"], [tmp_path / f"{name}.nii"], ["a"], ("background", "organ"))
        with pytest.raises(DataError, match=rf"{name}\.nii: .*{message}"):
            cases[0]


def test_wrong_targets_are_named(tmp_path, stored):
    nib.save(stored, tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii")
    with pytest.raises(ValueError, match="file: expected a name that ends in"):
        write_nifti(tmp_path / "b.png", np.zeros((7, 10, 12), np.uint8), volume)
    with pytest.raises(ValueError, match="labels: expected 7 x 10 x 12"):
        write_nifti(tmp_path / "b.nii", np.zeros((7, 12, 10), np.uint8), volume)
    with pytest.raises(ValueError, match="target: expected a name that ends in"):
        predict_file(Threshold(), tmp_path / "a.nii", tmp_path / "b.png")


def test_real_ct(real_data):
    """The stand-in for Synapse was made from this volume, without turning it from RAS."""
    folder = real_data / "multiorgan_ct" / "totalsegmentator_example"
    classes = [str(i) for i in range(118)]
    files = ([folder / "example_ct_sm.nii.gz"], [folder / "example_seg.nii.gz"], ["ct"])
    case = NiftiFiles(*files, classes, window=(-125, 275))[0]
    assert case.shape == (30, 101, 122) and case.spacing == (3, 3, 3) and len(np.unique(case.label)) == 42
    derived = synapse(real_data / "multiorgan_ct" / "synapse_layout_derived", "test")[0]
    np.testing.assert_allclose(case.image[:, :, ::-1, ::-1], derived.image, atol=1e-6)
    liver = case.label == 5  # in TotalSegmentator's numbers and in the derived ones
    assert np.array_equal(liver[:, ::-1, ::-1], derived.label == 5)


def test_bombs_are_refused(tmp_path, stored, monkeypatch):
    monkeypatch.setattr("cfii.training.nifti.MAX_BYTES", 1000)
    nib.save(stored, tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match=r"a\.nii\.gz: expected at most 1000 bytes"):
        read_nifti(tmp_path / "a.nii.gz")

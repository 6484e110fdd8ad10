"""Damaged copies of every set: an error that names the file, never a wrong number, never another library's
traceback.

Formats with a checksum (PNG, .npz, .nii.gz, compressed HDF5) are damaged bit by bit; whatever still loads must
be what it was. Formats without one (BMP, TIFF, HDF5 that is not compressed) cannot show a changed pixel, only a
changed structure.
"""

import json
import shutil

import h5py
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from cfii.training.files import DataError
from cfii.training.sets import open_set

# name: set, folder of the real files, split, and what to copy of it
COPIES = {
    "synapse": ("synapse", "multiorgan_ct/synapse_layout_derived", "train", ["**/case9001_slice00*", "**/*.txt"]),
    "synapse volumes": ("synapse", "multiorgan_ct/synapse_layout_derived", "test", ["**/*.h5", "**/*.txt"]),
    "acdc h5": ("acdc", "acdc_h5", "train", ["**/patient001_frame01_slice*", "*.list"]),
    "acdc h5 volumes": ("acdc", "acdc_h5", "test", ["**/patient004*", "*.list"]),
    "acdc nifti": ("acdc", "acdc_nifti", "train", ["training/patient001/*", "training/patient041/*"]),
    "glas": ("glas", "glas", "train", ["Train_Folder/*/*"]),
    "glas warwick": ("glas", "glas/warwick_layout_reencoded", "train", ["train*.bmp"]),
    "monuseg": ("monuseg", "paper224/MoNuSeg", "val", ["Val_Folder/*/*"]),
    "decathlon": ("decathlon", "msd_hippocampus/Task04_Hippocampus", "train", ["*.json", "*Tr/*_00*"]),
    "folder": ("folder", "wbc/Dataset 1", "train", ["00*", "01*"]),
}


@pytest.fixture(params=COPIES)
def copy(request, real_data, tmp_path):
    """(set, its copy, split)"""
    name, source, split, patterns = COPIES[request.param]
    for pattern in patterns:
        for file in (real_data / source).glob(pattern):
            target = tmp_path / file.relative_to(real_data / source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    for listed in (*tmp_path.rglob("*.txt"), *tmp_path.rglob("*.list")):  # of what was copied
        present = {file.name for file in tmp_path.rglob("*.*")}
        names = [n for n in listed.read_text().split() if {f"{n}.npz", f"{n}.h5", f"{n}.npy.h5"} & present]
        listed.write_text("\n".join(names))
    description = tmp_path / "dataset.json"
    if description.is_file():
        content = json.loads(description.read_text())
        content["training"] = [c for c in content["training"] if (tmp_path / c["image"]).is_file()]
        description.write_text(json.dumps(content))
    return name, tmp_path, split


def load(copy):
    name, root, split = copy
    options = {"slices": False} if name == "decathlon" else {}
    return list(open_set(name, root, split, **options))


def data_files(root):
    return sorted(
        f for f in root.rglob("*") if f.is_file() and f.suffix not in (".txt", ".list", ".json", ".cfg", ".md")
    )


def label_files(root):
    """Files with labels, alone or beside the image."""
    marks = ("labelcol", "labelsTr", "_anno", "_gt", ".h5", ".npz")
    found = [f for f in data_files(root) if any(mark in str(f.relative_to(root)) for mark in marks)]
    return found or [f for f in data_files(root) if f.suffix == ".png"]


def fails(copy, *files, message=""):
    """Loading fails, and the message names one of the files."""
    with pytest.raises(DataError) as caught:
        load(copy)
    assert any(str(file) in str(caught.value) for file in files), caught.value
    assert message in str(caught.value)


def change(file, edit):
    """Rewrite a file's labels, or for a string edit its structure."""
    if file.suffix == ".npz":
        with np.load(file) as data:
            arrays = dict(data)
        np.savez_compressed(file, **{**arrays, "label": edit(arrays["label"])})
    elif file.suffix == ".h5":
        with h5py.File(file, "r+") as data:
            label = edit(data["label"][()])
            del data["label"]
            data["label"] = label
    elif file.name.endswith(".nii.gz"):
        image = nib.load(file)
        nib.save(nib.Nifti1Image(edit(np.asarray(image.dataobj).copy()), image.affine), file)
    else:
        with Image.open(file) as image:
            pixels = np.array(image)
        Image.fromarray(edit(pixels)).save(file)


def test_the_copies_are_good(copy):
    assert load(copy)


def test_missing_file(copy):
    for file in (data_files(copy[1])[0], label_files(copy[1])[-1]):
        content = file.read_bytes()
        file.unlink()
        # of a pair, the one that is left is named, and it says what it misses
        others = [other for other in data_files(copy[1]) if other.stem.split(".")[0] in file.stem + "_anno"]
        fails(copy, file, *others)
        file.write_bytes(content)


def test_truncated_file(copy):
    for share in (0, 0.3, 0.98):
        for file in (data_files(copy[1])[0], label_files(copy[1])[-1]):
            content = file.read_bytes()
            file.write_bytes(content[: int(share * len(content))])
            fails(copy, file)
            file.write_bytes(content)


def test_wrong_label_values(copy):
    """77 is no label anywhere here, and no instance's number where there are few."""

    def stain(label):
        label[tuple(n // 2 for n in label.shape)] = 77
        return label

    file = label_files(copy[1])[-1]
    change(file, stain)
    fails(copy, file, message="77")


def test_wrong_shape(copy):
    file = label_files(copy[1])[-1]
    change(file, lambda label: label[:-1])
    fails(copy, file, message="expected")


def test_wrong_kind_of_file(copy):
    """Two kinds of files swapped: an image in place of a label, or text."""
    for file in (data_files(copy[1])[0], label_files(copy[1])[-1]):
        content = file.read_bytes()
        file.write_bytes(b"<html>404: please log in</html>" * 100)
        fails(copy, file)
        file.write_bytes(content)


def test_swapped_names(copy):
    """Of two cases of different sizes, or of an image and its label."""
    name, root, _ = copy
    files = data_files(root)
    if name in ("synapse", "acdc") and files[0].suffix in (".npz", ".h5"):
        file = files[0]  # image and label are in one file: under each other's names
        if file.suffix == ".npz":
            with np.load(file) as data:
                np.savez(file, image=data["label"], label=data["image"])
        else:
            with h5py.File(file, "r+") as data:
                data.move("image", "other")
                data.move("label", "image")
                data.move("other", "label")
        fails(copy, file)
        return
    label = label_files(root)[0]
    image = next(f for f in files if (f != label and f.stem.split(".")[0] in label.stem) or "img" in str(f))
    a, b = image.read_bytes(), label.read_bytes()
    if name == "folder":
        pytest.skip("of a pair side by side, the mask is found by looking")
    image.write_bytes(b), label.write_bytes(a)
    fails(copy, image, label)


def test_empty_list(copy):
    name, root, _ = copy
    lists = {"synapse": ["train.txt", "test_vol.txt"], "acdc": ["train_slices.list", "test.list"]}.get(name, [])
    found = [f for f in root.rglob("*") if f.name in lists]
    for file in found:
        file.write_text("\n")
    if found:
        fails(copy, *found, message="empty list")
        return
    for file in data_files(root):
        file.unlink()
    fails(copy, root)


@pytest.mark.parametrize("share", [0, 1])
def test_flipped_bits(copy, share):
    """What still loads is what it was."""
    name, root, _ = copy
    file = (data_files(root)[0], label_files(root)[-1])[share]
    sure = file.suffix in (".png", ".npz", ".gz") or (file.suffix == ".h5" and name == "acdc")
    if name == "glas" and file.suffix == ".png" and "img" in file.parts and share:
        pytest.skip("seen above")
    before, content = load(copy), file.read_bytes()
    rng, named = np.random.default_rng(0), 0
    for trial in range(40):
        damaged = bytearray(content)
        # headers and indices are where damage hides: half of the flips go to the first bytes
        place = rng.integers(min(len(content), 3000) if trial % 2 else len(content))
        damaged[place] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        try:
            after = load(copy)
        except DataError as error:
            assert str(file) in str(error)
            named += 1
            continue
        assert len(after) == len(before)
        for a, b in zip(before, after, strict=True):
            assert a.image.shape == b.image.shape
            if sure:
                assert np.array_equal(a.image, b.image) and np.array_equal(a.label, b.label), place
    assert named or not sure


@pytest.mark.filterwarnings("ignore")  # Pillow's and NumPy's about damaged files
def test_nothing_but_data_errors(copy):
    """Many bits at once."""
    file = data_files(copy[1])[0]
    content, rng = file.read_bytes(), np.random.default_rng(1)
    for _ in range(20):
        damaged = bytearray(content)
        for place in rng.integers(len(content), size=200):
            damaged[place] = rng.integers(256)
        damaged[: rng.integers(64)] = rng.bytes(int(rng.integers(64)))
        file.write_bytes(damaged)
        try:
            load(copy)
        except DataError as error:
            assert str(file) in str(error)

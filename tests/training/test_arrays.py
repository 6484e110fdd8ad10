import h5py
import numpy as np
import pytest

from cfii.training.arrays import ArrayFiles, read_arrays
from cfii.training.files import DataError

CLASSES = ("background", "organ")


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    image = rng.random((40, 30), dtype=np.float32)
    return {"image": image, "label": (image > 0.7).astype(np.float32)}


def write(file, arrays, **options):
    if file.suffix == ".npz":
        np.savez(file, **arrays)
    else:
        with h5py.File(file, "w") as data:
            for key, values in arrays.items():
                data.create_dataset(key, data=values, **options)
    return file


def read(file, **options):
    return ArrayFiles([file], [file.stem], CLASSES, **{"dimensions": 2, **options})[0]


@pytest.mark.parametrize("name", ["a.npz", "a.h5", "a.npy.h5"])
def test_both_formats(tmp_path, arrays, name):
    case = read(write(tmp_path / name, arrays), value_range=(0, 1))
    assert np.array_equal(case.image[0], arrays["image"]) and case.image.dtype == np.float32
    assert np.array_equal(case.label, arrays["label"]) and case.label.dtype == np.uint8


def test_bytes_are_scaled(tmp_path, arrays):
    arrays["image"] = (255 * arrays["image"]).astype(np.uint8)
    case = read(write(tmp_path / "a.npz", arrays), value_range=(0, 1))
    assert np.array_equal((case.image[0] * 255).round(), arrays["image"])


@pytest.mark.parametrize("name", ["a.npz", "a.h5"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, "expected an array 'label', found 'image'"),
        ({"image": np.full((40, 30), 300.0)}, r"expected an image with values in \[0, 1\], found 300 to 300"),
        ({"image": np.full((40, 30), np.nan)}, r"expected an image with values in \[0, 1\]"),
        ({"image": np.zeros((40, 30), complex)}, "expected an image of real numbers"),
        ({"image": np.zeros((2, 40, 30))}, "expected an image of 2 dimensions, found 2 x 40 x 30"),
        ({"label": np.zeros((30, 40))}, "expected labels of 40 x 30"),
        ({"label": np.full((40, 30), 2)}, "expected labels 0 to 1, found also 2"),
        ({"image": 0.0}, "expected an image of 2 dimensions, found a single value"),
    ],
)
def test_wrong_content_is_named(tmp_path, arrays, name, change, message):
    arrays = {key: value for key, value in {**arrays, **change}.items() if value is not None}
    with pytest.raises(DataError, match=rf"{name}: {message}"):
        read(write(tmp_path / name, arrays), value_range=(0, 1))


def test_swapped_arrays_are_found(tmp_path, arrays):
    file = write(tmp_path / "a.h5", {"image": arrays["label"], "label": arrays["image"]})
    with pytest.raises(DataError, match=r"a\.h5: expected whole numbers as labels"):
        read(file)


def test_pickles_are_refused(tmp_path, arrays):
    np.savez(tmp_path / "a.npz", image=np.array([{"a": 1}], dtype=object), label=arrays["label"])
    with pytest.raises(DataError, match=r"a\.npz: expected a NumPy \.npz file, but ValueError: Object arrays"):
        read(tmp_path / "a.npz")


def test_links_out_of_the_file_are_refused(tmp_path, arrays):
    write(tmp_path / "other.h5", arrays)
    with h5py.File(tmp_path / "a.h5", "w") as data:
        data["image"] = h5py.ExternalLink("other.h5", "/image")
        data["label"] = h5py.SoftLink("/image")
        data.create_dataset("raw", (4,), "u1", external=[("/etc/hostname", 0, 4)])
        data.create_group("group")
        layout = h5py.VirtualLayout((40, 30), "f4")
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "image", (40, 30))
        data.create_virtual_dataset("virtual", layout)
    for key in ("image", "label", "raw", "group", "virtual"):
        with pytest.raises(DataError, match=rf"a\.h5: expected .*'{key}'"):
            read_arrays(tmp_path / "a.h5", [key])


def test_a_lost_chunk_is_not_read_as_zeros(tmp_path, arrays):
    with h5py.File(tmp_path / "a.h5", "w") as data:
        data["image"] = arrays["image"]
        label = data.create_dataset("label", (40, 30), "u1", chunks=(10, 30), compression="gzip")
        label[:30] = 1  # the last chunk is never written
    with pytest.raises(DataError, match=r"a\.h5: expected an HDF5 file, but "):
        read(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as data:
        data["image"] = arrays["image"]
        data.create_dataset("label", (40, 30), "u1")
    with pytest.raises(DataError, match=r"b\.h5: expected 1200 values in 'label', found fewer"):
        read(tmp_path / "b.h5")


def test_sizes_beyond_memory_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as data:
        data.create_dataset("image", (1 << 20, 1 << 20), "f4", chunks=(64, 64), compression="gzip")
    with pytest.raises(DataError, match=r"a\.h5: expected at most"):
        read_arrays(tmp_path / "a.h5", ["image"])


def test_bombs_are_refused(tmp_path, monkeypatch):
    """Small files that unfold to much: the limit, lowered here, is on what they say and on what they give."""
    monkeypatch.setattr("cfii.training.arrays.MAX_BYTES", 10_000_000)
    np.savez_compressed(tmp_path / "a.npz", image=np.zeros((3000, 3000), np.float32), label=np.zeros((2, 2)))
    assert (tmp_path / "a.npz").stat().st_size < 100_000
    with pytest.raises(DataError, match=r"a\.npz: expected at most 10000000 bytes"):
        read_arrays(tmp_path / "a.npz", ["image"])

"""Cases in NumPy's .npz and in HDF5 files, as TransUNet, MT-UNet and SSL4MIS keep them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cfii.training.cases import Case, CaseSet, format_shape
from cfii.training.files import MAX_BYTES, MAX_VALUES, DataError, reading

ENDINGS = (".npz", ".h5", ".hdf5")
IMAGE_KEYS = ("image", "img")  # TransUNet's and SSL4MIS's, MT-UNet's
Key = str | tuple[str, ...]


class ArrayFiles(CaseSet):
    """One file per case, with one array for the image and one for the labels.

    The image is (H, W), or (D, H, W) for a volume. Unsigned 8-bit images are scaled to [0, 1] by 1/255; others
    are expected as their format has them.

    Args:
        files: `.npz`, or HDF5 with any other extension.
        names: of the cases.
        keys: of the image and of the labels.
        dimensions: 2 for slices, 3 for volumes.
        value_range: what the images' values lie in, where the format says so.
        subject: from a case's name to its patient's.
        relabel: applied to the labels as read.
    """

    channels = 1

    def __init__(
        self,
        files: Sequence[Path],
        names: Sequence[str],
        classes: Sequence[str],
        *,
        keys: tuple[str, str] = ("image", "label"),
        dimensions: int,
        value_range: tuple[float, float] | None = None,
        subject: Callable[[str], str] = str,
        relabel: Callable[[np.ndarray, Path], np.ndarray] | None = None,
    ) -> None:
        self.files, self.names, self.classes = list(files), list(names), tuple(classes)
        self.keys, self.dimensions, self.value_range = keys, dimensions, value_range
        self.subject, self.relabel = subject, relabel

    @property
    def subjects(self) -> list[str]:
        return [self.subject(name) for name in self.names]

    def load(self, index: int) -> Case:
        file = self.files[index]
        image, label = read_arrays(file, self.keys)
        if image.ndim != self.dimensions:
            raise DataError(
                f"{file}: expected an image of {self.dimensions} dimensions, found {format_shape(image.shape)}"
            )
        return Case(
            name=self.names[index],
            image=scale_array(image, file, self.value_range)[None],
            label=label if self.relabel is None else self.relabel(label, file),
            file=file,
        )


def scale_array(image: np.ndarray, file: Path, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """float32; unsigned 8-bit values as [0, 1]. Values outside `value_range` are an error."""
    if image.dtype.kind not in "fiu":
        raise DataError(f"{file}: expected an image of real numbers, found {image.dtype}")
    if image.dtype == np.uint8:
        return image.astype(np.float32) / 255
    if value_range is not None and image.size:
        low, high = value_range
        slack = 1e-3 * (high - low)  # rounding, and cubic interpolation by whoever prepared the file
        if not (low - slack <= image.min() and image.max() <= high + slack):  # also refuses NaN
            raise DataError(
                f"{file}: expected an image with values in [{low:g}, {high:g}], found {image.min():g} to "
                f"{image.max():g}; the format holds images that are already clipped and scaled"
            )
    return image.astype(np.float32)


def read_arrays(file: Path, keys: Sequence[Key]) -> list[np.ndarray]:
    return read_npz(file, keys) if file.suffix == ".npz" else read_h5(file, keys)


def read_npz(file: Path, keys: Sequence[Key]) -> list[np.ndarray]:
    """Arrays by name; pickled objects are refused, as is np.load's default."""
    # Opened here, as NumPy leaves a damaged file open.
    with reading(file, "a NumPy .npz file"), file.open("rb") as opened, np.load(opened) as data:
        size = sum(member.file_size for member in data.zip.infolist())
        if size > MAX_BYTES:
            raise DataError(f"{file}: expected at most {MAX_BYTES} bytes, found {size}")
        return [data[require_key(file, key, data.files)] for key in keys]


def read_h5(file: Path, keys: Sequence[Key]) -> list[np.ndarray]:
    """Data sets by name; links to other files are refused."""
    with reading(file, "an HDF5 file"), h5py.File(file, "r") as data:
        return [read_dataset(file, data, require_key(file, key, list(data))) for key in keys]


def read_dataset(file: Path, data: Any, key: str) -> np.ndarray:
    link = data.get(key, getlink=True)
    if not isinstance(link, h5py.HardLink) or not isinstance(data[key], h5py.Dataset):
        raise DataError(f"{file}: expected {key!r} to be a data set in this file, found {type(link).__name__}")
    values = data[key]
    if values.is_virtual or values.external:
        raise DataError(f"{file}: expected the values of {key!r} in this file, found a link to another file")
    if values.size is None or values.size > MAX_VALUES:
        raise DataError(f"{file}: expected at most {MAX_VALUES} values in {key!r}, found {values.size}")
    if values.chunks:
        check_chunks(file, key, values)
    elif values.size and values.id.get_storage_size() != values.size * values.dtype.itemsize:
        raise DataError(f"{file}: expected {values.size} values in {key!r}, found fewer: it is damaged")
    return values[()]


def check_chunks(file: Path, key: str, values: h5py.Dataset) -> None:
    """HDF5's index of chunks carries no checksum: a chunk that it has lost would be read as zeros, one that it
    says is not compressed as whatever its bytes are, without an error."""
    starts = (range(0, n, chunk) for n, chunk in zip(values.shape, values.chunks, strict=True))
    for start in product(*starts):
        filter_mask, _ = values.id.read_direct_chunk(start)  # raises where the index leads nowhere
        if filter_mask:
            raise DataError(
                f"{file}: expected a compressed chunk of {key!r} at {start}, found another: it is damaged"
            )


def require_key(file: Path, key: Key, found: Sequence[str]) -> str:
    """The key, or of several the first that the file has."""
    keys = (key,) if isinstance(key, str) else key
    for candidate in keys:
        if candidate in found:
            return candidate
    raise DataError(
        f"{file}: expected an array {' or '.join(map(repr, keys))}, found {', '.join(map(repr, found)) or 'none'}"
    )

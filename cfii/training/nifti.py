"""Volumes in NIfTI files: slices in one orientation, predictions back in the file's own."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from cfii.training.cases import Case, CaseSet, format_shape
from cfii.training.files import MAX_BYTES, MAX_VALUES, DataError, reading, writing

ENDINGS = (".nii.gz", ".nii")
# Rows run to posterior and columns to the patient's left, as radiologists look at axial slices; slices upwards.
ORIENTATION = "LPS"
HEADER_BYTES = {348: nib.Nifti1Image, 540: nib.Nifti2Image}


@dataclass(frozen=True)
class Volume:
    """A NIfTI file's values, turned to `ORIENTATION`, and what brings labels back into the file's own frame.

    Args:
        values: (channels, D, H, W), slices along the axis closest to the body's.
        spacing: (D, H, W), mm.
        image: as nibabel read it.
    """

    values: np.ndarray
    spacing: tuple[float, float, float]
    image: nib.Nifti1Image

    def restore(self, labels: np.ndarray) -> np.ndarray:
        """([N,] D, H, W) in the orientation of `values` -> (X, Y, Z[, N]) as stored in the file."""
        back = ornt_transform(axcodes2ornt(ORIENTATION), io_orientation(self.image.affine))
        return np.ascontiguousarray(apply_orientation(labels.T, back))


def read_nifti(file: str | Path) -> Volume:
    """Read a volume (X, Y, Z), or one with channels (X, Y, Z, C).

    The orientation is that of the affine, the spacing that of the header's pixdim: where both disagree (ACDC's
    official files hold a unit affine beside the true spacing) pixdim is right.

    Raises:
        DataError: names the file.
    """
    file = Path(file)
    with reading(file, "a NIfTI file"):
        # Read whole, so that gzip gets to its checksum; nibabel alone stops before it.
        with (gzip.open if file.name.endswith(".gz") else open)(file, "rb") as opened:
            data = opened.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise DataError(f"{file}: expected at most {MAX_BYTES} bytes, found more")
        kind = HEADER_BYTES.get(int.from_bytes(data[:4], "little")) or HEADER_BYTES.get(
            int.from_bytes(data[:4], "big")
        )
        if kind is None:
            raise DataError(f"{file}: expected a NIfTI file, found other bytes where its header should be")
        image = kind.from_bytes(data)
        if not np.prod(image.shape, dtype=float) <= MAX_VALUES:
            raise DataError(f"{file}: expected at most {MAX_VALUES} values, found {format_shape(image.shape)}")
        if len(image.shape) not in (3, 4) or 0 in image.shape or image.get_data_dtype().kind not in "fiu":
            raise DataError(
                f"{file}: expected a volume of real numbers (X, Y, Z) or (X, Y, Z, channels), found "
                f"{format_shape(image.shape)} of {image.get_data_dtype()}"
            )
        spacing = np.array(image.header.get_zooms()[:3], dtype=float)
        affine = image.affine
        if not (np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-12):
            raise DataError(f"{file}: expected an affine that can be inverted, found {affine[:3].tolist()}")
        if not (np.isfinite(spacing).all() and (spacing > 0).all()):
            raise DataError(f"{file}: expected a positive voxel size, found {spacing.tolist()}")
        turn = ornt_transform(io_orientation(affine), axcodes2ornt(ORIENTATION))
        values = apply_orientation(np.asarray(image.dataobj), turn)
    turned = np.empty(3)
    turned[turn[:, 0].astype(int)] = spacing
    return Volume(values.T if values.ndim == 4 else values.T[None], tuple(turned[::-1].tolist()), image)


def write_nifti(file: str | Path, labels: np.ndarray, like: Volume) -> None:
    """Write labels (D, H, W), or masks (N, D, H, W) as a fourth axis, with the affine, spacing, orientation and
    size of the volume they belong to.

    Raises:
        ValueError: labels of another size, or a name that is not `.nii` or `.nii.gz`.
    """
    if not str(file).endswith(ENDINGS):
        raise ValueError(f"file: expected a name that ends in {' or '.join(ENDINGS)}, got {file}")
    if labels.ndim not in (3, 4) or labels.shape[-3:] != like.values.shape[1:]:
        raise ValueError(
            f"labels: expected {format_shape(like.values.shape[1:])}, like the volume, got "
            f"{format_shape(labels.shape)}"
        )
    stored = like.restore(labels)
    header = like.image.header.copy()
    # Of the image's header, what describes its values and its fourth axis does not hold for labels.
    header.set_data_shape(stored.shape)
    header.set_data_dtype(np.uint8 if labels.max(initial=0) < 256 else np.int32)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    header.extensions = type(header.extensions)()  # the copy shares the list
    image = type(like.image)(stored.astype(header.get_data_dtype()), like.image.affine, header)
    with writing(file) as temporary:
        nib.save(image, temporary)


class NiftiFiles(CaseSet):
    """One NIfTI file for the image of a case, one for its labels.

    Args:
        images, labels: files, in the same order; a label may be None.
        names: of the cases.
        window: (low, high), for computed tomography in Hounsfield units: values are clipped to it and scaled to
            [0, 1]. None: each channel of a volume is clipped from above at its own 99th percentile (see
            `upper_bound`) and scaled from its minimum to [0, 1], as SSL4MIS prepares ACDC.
        channels: of the images.
        subject: from a case's name to its patient's.
    """

    def __init__(
        self,
        images: Sequence[Path],
        labels: Sequence[Path | None],
        names: Sequence[str],
        classes: Sequence[str],
        *,
        window: tuple[float, float] | None = None,
        channels: int = 1,
        subject: Callable[[str], str] = str,
    ) -> None:
        self.images, self.labels = list(images), list(labels)
        self.names, self.classes = list(names), tuple(classes)
        self.window, self.channels, self.subject = check_window(window), channels, subject

    @property
    def subjects(self) -> list[str]:
        return [self.subject(name) for name in self.names]

    def load(self, index: int) -> Case:
        file, label_file = self.images[index], self.labels[index]
        volume = read_nifti(file)
        label = None
        if label_file is not None:
            truth = read_nifti(label_file)
            check_same_place(truth, label_file, volume, file)
            label = truth.values[0]
        image = scale_intensity(volume.values, self.window, file)
        return Case(self.names[index], image, label, file, label_file, volume.spacing)


def check_same_place(truth: Volume, label_file: Path, volume: Volume, file: Path) -> None:
    """Labels on another grid than their image would be scored against the wrong voxels."""
    shape, expected = truth.values.shape, volume.values.shape[1:]
    if shape != (1, *expected):
        raise DataError(
            f"{label_file}: expected labels of {format_shape(expected)}, like their image {file.name}, found "
            f"{format_shape(shape[1:] if shape[0] == 1 else shape)}"
        )
    if not np.allclose(truth.image.affine, volume.image.affine, rtol=1e-3, atol=1e-2):
        raise DataError(
            f"{label_file}: expected the affine of its image {file.name}, found another: the labels lie elsewhere"
        )


def check_window(window: Sequence[float] | None) -> tuple[float, float] | None:
    if window is None:
        return None
    if len(window) != 2 or not window[0] < window[1]:
        raise ValueError(f"window: expected None or (low, high) with low < high, got {window!r}")
    return float(window[0]), float(window[1])


def scale_intensity(values: np.ndarray, window: tuple[float, float] | None, file: Path) -> np.ndarray:
    """Clip and scale (channels, D, H, W) to [0, 1] float32; see `NiftiFiles`."""
    if not np.isfinite(values).all():
        raise DataError(f"{file}: expected finite values in the image, found NaN or infinity")
    scaled = []
    for channel in values:
        if window is not None:
            low, high = window
        else:
            low, high = channel.min(), upper_bound(channel)
            high = high if high > low else max(channel.max(), low + 1)  # nearly all voxels have one value
        scaled.append((channel.astype(np.float64).clip(low, high) - low) / (high - low))
    return np.stack(scaled).astype(np.float32)


def upper_bound(channel: np.ndarray) -> float:
    """The value that 99 % of the voxels do not exceed: of whole numbers exactly, of fractions the centre of one
    of 256 bins, as scikit-image's `cumulative_distribution`, which prepared SSL4MIS's files, finds it."""
    if channel.dtype.kind in "iu":
        return float(np.quantile(channel, 0.99, method="inverted_cdf"))
    counts, edges = np.histogram(channel, bins=256)
    first = int((counts.cumsum() / channel.size >= 0.99).argmax())
    return float(edges[first] + edges[first + 1]) / 2

"""A case (one image and its labels) and a set of cases: what every data set gives."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from cfii.training.files import DataError


@dataclass(frozen=True)
class Case:
    """One image as it lies on disk, in its own size.

    Args:
        name: unique in its set.
        image: float32, (channels, H, W), or (channels, D, H, W) for a volume of D slices.
        label: whole numbers (H, W) or (D, H, W); for multilabel data bool, (classes, H, W) or
            (classes, D, H, W). None where the data has none.
        file: the file to name when something is wrong with the image; `label_file` likewise.
        spacing: of the image's last axes, in mm; None if the file does not say.
    """

    name: str
    image: np.ndarray
    label: np.ndarray | None
    file: Path
    label_file: Path | None = None
    spacing: tuple[float, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) or (D, H, W)."""
        return self.image.shape[1:]

    def plane(self, index: int) -> Case:
        """One slice of a volume."""
        label = None if self.label is None else self.label[..., index, :, :]
        spacing = None if self.spacing is None else self.spacing[1:]
        return replace(
            self, name=f"{self.name}_slice_{index}", image=self.image[:, index], label=label, spacing=spacing
        )


class CaseSet(Dataset, ABC):
    """Cases that are read, and checked, one at a time: `cases[i]` is a `Case`.

    Attributes:
        names: of all cases.
        classes: their names; the first is the background, unless `multilabel`.
        multilabel: a pixel may belong to several classes.
        channels: of the images.
        subjects: what a case belongs to (its patient), where the names tell; cases of one subject must not be
            split between training and scoring.
    """

    names: list[str]
    classes: tuple[str, ...]
    channels: int
    multilabel: bool = False

    @abstractmethod
    def load(self, index: int) -> Case:
        """Read a case; `__getitem__` checks what it holds."""

    @property
    def subjects(self) -> list[str]:
        return self.names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Case:
        if not 0 <= index < len(self):
            raise IndexError(f"index: expected 0 to {len(self) - 1}, got {index}")
        case = self.load(index)
        check_image(case, self.channels)
        if case.label is None:
            return case
        return replace(case, label=check_label(case, len(self.classes), self.multilabel))


class Subset(CaseSet):
    """Some of a set's cases."""

    def __init__(self, cases: CaseSet, indices: Sequence[int]) -> None:
        self.cases, self.indices = cases, list(indices)
        self.classes, self.channels, self.multilabel = cases.classes, cases.channels, cases.multilabel
        self.names = [cases.names[i] for i in self.indices]

    @property
    def subjects(self) -> list[str]:
        subjects = self.cases.subjects
        return [subjects[i] for i in self.indices]

    def load(self, index: int) -> Case:
        return self.cases.load(self.indices[index])


class Slices(CaseSet):
    """Every slice of every volume of a set, as cases of their own.

    The volumes are read once and kept in memory (4 bytes a value and the labels), which workers that are forked
    share: compressed volumes cannot be read slice by slice.
    """

    def __init__(self, volumes: CaseSet) -> None:
        self.classes, self.channels, self.multilabel = volumes.classes, volumes.channels, volumes.multilabel
        self.volumes = list(volumes)
        self.planes = [(v, z) for v, volume in enumerate(self.volumes) for z in range(volume.shape[0])]
        self.names = [f"{self.volumes[v].name}_slice_{z}" for v, z in self.planes]
        self.volume_subjects = volumes.subjects

    @property
    def subjects(self) -> list[str]:
        return [self.volume_subjects[v] for v, _ in self.planes]

    def load(self, index: int) -> Case:
        v, z = self.planes[index]
        return self.volumes[v].plane(z)


def hold_out(cases: CaseSet, fraction: float, seed: int = 0) -> tuple[Subset, Subset]:
    """(the rest, about `fraction` of the set), split at random by subject: no patient is in both.

    Of a single subject, cases are held out instead, with a warning.

    Raises:
        ValueError: fraction not between 0 and 1.
        DataError: a single case, which cannot be split.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction: expected a number between 0 and 1, got {fraction}")
    if len(cases) < 2:
        raise DataError(
            f"a part cannot be held out: expected at least 2 cases, found {len(cases)}: {cases.names}"
        )
    subjects = cases.subjects
    if len(set(subjects)) < 2:
        warnings.warn(
            f"all cases are of one subject ({subjects[0]}): cases are held out, and scores on them say little",
            stacklevel=2,
        )
        subjects = cases.names
    unique = sorted(set(subjects))
    count = min(max(round(fraction * len(unique)), 1), len(unique) - 1)
    return split_by(cases, subjects, np.random.default_rng(seed).permutation(unique)[:count].tolist())


def split_by(cases: CaseSet, subjects: Sequence[str], held: Sequence[str]) -> tuple[Subset, Subset]:
    """(the rest, the cases whose subject is held out), where `subjects` are those of the cases."""
    held = set(held)
    inside = [subject in held for subject in subjects]
    return (
        Subset(cases, [i for i, x in enumerate(inside) if not x]),
        Subset(cases, [i for i, x in enumerate(inside) if x]),
    )


def check_image(case: Case, channels: int) -> None:
    image = case.image
    if image.ndim not in (3, 4) or 0 in image.shape:
        raise DataError(f"{case.file}: expected an image of 2 or 3 dimensions, found {format_shape(case.shape)}")
    if len(image) != channels:
        raise DataError(
            f"{case.file}: expected {channels} channels, like the set's first image, found {len(image)}"
        )
    if not np.isfinite(image).all():
        raise DataError(f"{case.file}: expected finite values in the image, found NaN or infinity")


def check_label(case: Case, num_classes: int, multilabel: bool) -> np.ndarray:
    """The label as whole numbers (or bool), if it fits its image and its classes."""
    file, label = case.label_file or case.file, case.label
    shape = (num_classes, *case.shape) if multilabel else case.shape
    if label.shape != shape:
        raise DataError(
            f"{file}: expected labels of {format_shape(shape)}, like their image"
            + (f" {case.file.name}" if case.file != file else "")
            + f", found {format_shape(label.shape)}"
        )
    last = 1 if multilabel else num_classes - 1
    whole = whole_numbers(label, file)
    if whole.min() < 0 or whole.max() > last:
        wrong = np.unique(whole[(whole < 0) | (whole > last)])
        raise DataError(f"{file}: expected labels 0 to {last}, found also {format_values(wrong)}")
    return whole.astype(bool if multilabel else np.uint8 if num_classes <= 256 else np.int64)


def whole_numbers(values: np.ndarray, file: Path) -> np.ndarray:
    if values.dtype.kind in "biu":
        return values
    # beyond 2^31 floats are no labels, and do not fit whole numbers
    if values.dtype.kind != "f" or not (np.abs(values) < 2**31).all() or (values != np.rint(values)).any():
        raise DataError(
            f"{file}: expected whole numbers as labels, found {values.dtype} with fractions, NaN or text"
        )
    return values.astype(np.int64)


def distinct(values: np.ndarray) -> np.ndarray:
    """np.unique, several times faster for bytes."""
    return np.flatnonzero(np.bincount(values.ravel())) if values.dtype == np.uint8 else np.unique(values)


def format_shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a single value"


def format_values(values: Sequence[float], shown: int = 8) -> str:
    return ", ".join(f"{value:g}" for value in values[:shown]) + (", …" if len(values) > shown else "")

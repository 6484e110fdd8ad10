"""A look at a whole data set before anything is trained on it: every file, its sizes, its classes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from cfii.training.cases import Case, CaseSet, format_shape
from cfii.training.files import DataError

SHOWN = 12  # cases in the picture


@dataclass
class Survey:
    """What `survey` found.

    Attributes:
        errors: what is wrong, each naming its file.
        shapes: how many cases have which size.
        spacings: how many cases have which spacing, in mm; None where the files do not say.
        values: smallest and largest value of all images.
        pixels: of each class, over all cases.
        present: in how many cases each class is.
        planes: of each slice that is not of one value, a hash of its image; equal ones are the same picture.
        patients: the subjects, where they are more than the cases' own names.
        examples: some cases, spread over the set.
    """

    classes: tuple[str, ...]
    cases: int = 0
    errors: list[str] = field(default_factory=list)
    shapes: Counter = field(default_factory=Counter)
    spacings: Counter = field(default_factory=Counter)
    values: tuple[float, float] = (float("inf"), float("-inf"))
    pixels: np.ndarray | None = None
    present: np.ndarray | None = None
    total_pixels: int = 0
    planes: Counter = field(default_factory=Counter)
    patients: set[str] = field(default_factory=set)
    examples: list[Case] = field(default_factory=list)

    @property
    def absent(self) -> list[str]:
        """Classes that no case shows."""
        return [name for name, count in zip(self.classes, self.present, strict=True) if not count]

    def size_text(self) -> str:
        """Sizes as 'smallest to largest' along each axis, or the only one."""
        if not self.shapes:
            return "–"
        shapes = np.array([shape for shape in self.shapes if len(shape) == len(next(iter(self.shapes)))])
        low, high = shapes.min(0), shapes.max(0)
        return format_shape(low) if (low == high).all() else f"{format_shape(low)} to {format_shape(high)}"

    def spacing_text(self) -> str:
        known = [spacing for spacing in self.spacings if spacing is not None]
        if not known:
            return "not in the files"
        low, high = np.min(known, 0), np.max(known, 0)
        text = " x ".join(
            f"{a:.3g}" if np.isclose(a, b) else f"{a:.3g}–{b:.3g}" for a, b in zip(low, high, strict=True)
        )
        return f"{text} mm"


def survey(cases: CaseSet, advance: Callable[[], None] = lambda: None) -> Survey:
    """Read and check every case; what is wrong is collected, not raised.

    Args:
        advance: called after each case, for a progress bar.
    """
    count = len(cases.classes)
    found = Survey(cases.classes)
    if cases.subjects != cases.names:
        found.patients = set(cases.subjects)
    found.pixels, found.present = np.zeros(count, np.int64), np.zeros(count, np.int64)
    shown = set(np.linspace(0, len(cases) - 1, SHOWN).round().astype(int).tolist())
    for index in range(len(cases)):
        try:
            case = cases[index]
        except DataError as error:
            found.errors.append(str(error))
        else:
            add(found, case, cases.multilabel)
            if index in shown:
                found.examples.append(case)
        advance()
    return found


def add(found: Survey, case: Case, multilabel: bool) -> None:
    found.cases += 1
    found.shapes[case.shape] += 1
    found.spacings[None if case.spacing is None else tuple(round(s, 4) for s in case.spacing)] += 1
    for plane in case.image.reshape(len(case.image), -1, *case.shape[-2:]).swapaxes(0, 1):
        if plane.min() < plane.max():
            found.planes[hashlib.blake2b(np.ascontiguousarray(plane), digest_size=16).digest()] += 1
    low, high = found.values
    found.values = min(low, float(case.image.min())), max(high, float(case.image.max()))
    if case.label is None:
        return
    if multilabel:
        pixels = case.label.reshape(len(found.classes), -1).sum(1)
    else:
        pixels = np.bincount(case.label.ravel(), minlength=len(found.classes))
    found.pixels += pixels
    found.present += pixels > 0
    found.total_pixels += int(np.prod(case.shape))

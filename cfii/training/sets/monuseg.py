"""MoNuSeg: nuclei in histology of several organs (Kumar et al. 2017), binary."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cfii.training.cases import CaseSet, distinct, format_values
from cfii.training.files import DataError, NoSuchSplit, require_folder
from cfii.training.images import ImageFiles, Pair
from cfii.training.sets.folder import SPLITS, by_stem, find_pairs, find_split, list_files, match

CLASSES = ("background", "nucleus")
# The original archives, and where their images and polygons lie.
ARCHIVES = {
    "train": ("MoNuSeg 2018 Training Data", "Tissue Images", "Annotations"),
    "test": ("MoNuSegTestData", ".", "."),
}


def monuseg(root: str | Path, split: str = "train") -> CaseSet:
    """MoNuSeg in the layout of UCTransNet, or as the challenge gave it.

    - `Train_Folder/img/NAME.png` (or .tif) and `Train_Folder/labelcol/NAME.png` with 0 and 255 (or 1), likewise
      `Val_Folder` and `Test_Folder`;
    - `MoNuSeg 2018 Training Data/Tissue Images/NAME.tif` and `…/Annotations/NAME.xml`, and
      `MoNuSegTestData/NAME.tif` and `NAME.xml`: polygons, filled, with their outlines. `root` holds these folders
      or is one of them.

    Raises:
        NoSuchSplit: no files for this split.
        DataError: a missing or unreadable file, a mask that is not binary.
    """
    root = require_folder(root, "MoNuSeg")
    if any((root / name).is_dir() for names in SPLITS.values() for name in names):
        pairs = find_pairs(find_split(root, split))
    else:
        pairs = find_original(root, split)
    return BinaryMasks(pairs, foreground=True, classes=CLASSES)


class BinaryMasks(ImageFiles):
    """Masks of 0 and 255, or of 0 and 1: another value is damage, not an instance's number."""

    def to_labels(self, mask: np.ndarray, file: Path) -> np.ndarray:
        values = distinct(mask)
        if not (np.isin(values, (0, 255)).all() or np.isin(values, (0, 1)).all()):
            raise DataError(f"{file}: expected a mask of 0 and 255 (or 0 and 1), found {format_values(values)}")
        return super().to_labels(mask, file)


def find_original(root: Path, split: str) -> list[Pair]:
    archive, images, annotations = ARCHIVES.get(split, (None, "", ""))
    for parent in (root / archive, root) if archive else ():
        if parent.name == archive and (parent / images).is_dir():
            pictures = by_stem(list_files(parent / images))
            polygons = {file.stem: file for file in sorted((parent / annotations).glob("*.xml"))}
            match(pictures, polygons, parent / annotations)
            if pictures:
                return [Pair(stem, pictures[stem], polygons[stem]) for stem in sorted(pictures)]
    raise NoSuchSplit(
        f"{root}: expected {SPLITS[split][0]}/img and {SPLITS[split][0]}/labelcol"
        + (f", or the folder {archive!r} of the original archive" if archive else "")
        + ", found neither"
    )

"""GlaS: glands in colon histology (Sirinukunwattana et al. 2017), binary."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cfii.training.cases import CaseSet, distinct, format_values
from cfii.training.files import DataError, NoSuchSplit, require_folder
from cfii.training.images import ImageFiles
from cfii.training.sets.folder import SPLITS, find_pairs, find_split, list_files

CLASSES = ("background", "gland")
# Of the original archive's file names; its two test parts are scored together, as this field does.
WARWICK = {"train": ("train_",), "val": ("val_",), "test": ("testA_", "testB_")}


def glas(root: str | Path, split: str = "train") -> CaseSet:
    """GlaS in the layout of UCTransNet, or with the original archive's names.

    - `Train_Folder/img/1.png` and `Train_Folder/labelcol/1.png`, likewise `Val_Folder` and `Test_Folder`;
    - `train_1.bmp` and `train_1_anno.bmp`, likewise `testA_` and `testB_`.

    Masks hold instance ids: whatever is larger than 0 is gland.

    Raises:
        NoSuchSplit: no files for this split.
        DataError: a missing or unreadable file, colour masks.
    """
    root = require_folder(root, "GlaS")
    if any((root / name).is_dir() for names in SPLITS.values() for name in names):
        pairs = find_pairs(find_split(root, split))
    elif any(file.stem.endswith("_anno") for file in list_files(root)):
        pairs = [pair for pair in find_pairs(root) if pair.name.startswith(WARWICK[split])]
    else:
        pairs = []
    if not pairs:
        raise NoSuchSplit(
            f"{root}: expected {SPLITS[split][0]}/img and {SPLITS[split][0]}/labelcol, or files "
            f"{WARWICK[split][0]}1.bmp and {WARWICK[split][0]}1_anno.bmp, found neither"
        )
    return InstanceMasks(pairs, foreground=True, classes=CLASSES)


class InstanceMasks(ImageFiles):
    """Masks of instance ids, counted from 1 (a few may be missing), or of 0 and one other value."""

    def to_labels(self, mask: np.ndarray, file: Path) -> np.ndarray:
        ids = distinct(mask)
        ids = ids[ids > 0]
        if len(ids) > 1 and ids[-1] > 3 * len(ids) + 10:
            raise DataError(
                f"{file}: expected instance ids counted from 1, or 0 and one other value, found {len(ids)} "
                "ids up "
                f"to {ids[-1]}: {format_values(ids)}"
            )
        return super().to_labels(mask, file)

"""Synapse multi-organ CT (BTCV), as TransUNet prepared it: eight organs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from cfii.training.arrays import ArrayFiles
from cfii.training.cases import CaseSet, whole_numbers
from cfii.training.files import DataError, NoSuchSplit, read_list, require_files, require_folder

CLASSES = (
    "background",
    "aorta",
    "gallbladder",
    "left kidney",
    "right kidney",
    "liver",
    "pancreas",
    "spleen",
    "stomach",
)
# BTCV's own numbers, 0 to 13, as labels of CLASSES; oesophagus, veins and adrenal glands are not scored.
FROM_BTCV = np.array([0, 7, 4, 3, 2, 0, 5, 8, 1, 0, 0, 6, 0, 0])
LISTS = (".", "lists_Synapse", "lists/lists_Synapse")
# list, folder, ending, dimensions
SPLITS = {"train": ("train.txt", "train_npz", ".npz", 2), "test": ("test_vol.txt", "test_vol_h5", ".npy.h5", 3)}


def synapse(
    root: str | Path, split: str = "train", *, label_order: Literal["transunet", "btcv"] = "transunet"
) -> CaseSet:
    """Slices `train_npz/case0005_slice000.npz` and volumes `test_vol_h5/case0008.npy.h5`, both with `image`
    (already clipped to [-125, 275] HU and scaled to [0, 1]) and `label`.

    The lists `train.txt` and `test_vol.txt` are looked for in the root, in `lists_Synapse/` and in
    `lists/lists_Synapse/`, there and in the folders above it (TransUNet keeps them with its code).

    Args:
        label_order: two numberings are in circulation. "transunet": 0 to 8, in the order of `CLASSES`. "btcv":
            the raw 0 to 13, brought to that order. Files of one read as the other would be scored wrongly: labels
            above 8 are an error in the first.

    Raises:
        NoSuchSplit: no list for this split.
        DataError: a file that is listed but missing; an empty list.
    """
    root = require_folder(root, "Synapse")
    if label_order not in ("transunet", "btcv"):
        raise ValueError(f"label_order: expected 'transunet' or 'btcv', got {label_order!r}")
    if split not in SPLITS:
        raise NoSuchSplit(f"split: Synapse has {' and '.join(SPLITS)}, no {split!r}")
    name, folder, ending, dimensions = SPLITS[split]
    listed = find_list(root, name)
    names = read_list(listed, ending, ".h5", ".npz")
    return ArrayFiles(
        require_files(names, root / folder, ending, listed),
        names,
        CLASSES,
        dimensions=dimensions,
        value_range=(0, 1),
        subject=lambda name: name.partition("_slice")[0],
        relabel=from_btcv if label_order == "btcv" else None,
    )


def find_list(root: Path, name: str) -> Path:
    places = [parent / inner for parent in (root, *list(root.resolve().parents)[:2]) for inner in LISTS]
    for place in places:
        if (place / name).is_file():
            return place / name
    raise NoSuchSplit(
        f"{root}: expected the list {name} in it, in lists_Synapse/ or in lists/lists_Synapse/, found none"
    )


def from_btcv(label: np.ndarray, file: Path) -> np.ndarray:
    whole = whole_numbers(label, file)
    if whole.min() < 0 or whole.max() >= len(FROM_BTCV):
        raise DataError(f"{file}: expected BTCV's labels 0 to 13, found {whole.min()} to {whole.max()}")
    return FROM_BTCV[whole]

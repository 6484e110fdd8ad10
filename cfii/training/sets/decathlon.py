"""The Medical Segmentation Decathlon's tasks (Antonelli et al. 2022): NIfTI volumes and a `dataset.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from cfii.training.cases import CaseSet, Slices
from cfii.training.files import DataError, NoSuchSplit, reading, require_folder
from cfii.training.nifti import ENDINGS, NiftiFiles
from cfii.training.sets.folder import innermost


def decathlon(
    root: str | Path, split: str = "train", *, window: Sequence[float] | None = None, slices: bool = True
) -> CaseSet:
    """A task's folder with `dataset.json`, `imagesTr/`, `labelsTr/`, and `imagesTs/` without labels.

    "train" gives the training volumes, cut into slices; "test" gives the volumes of `imagesTs/`, unlabelled. The
    Decathlon names no validation split.

    Args:
        window: (low, high) in Hounsfield units for CT tasks; see `NiftiFiles`.
        slices: False gives "train" as volumes.

    Raises:
        NoSuchSplit: no such split.
        DataError: a missing file, an unreadable `dataset.json`.
    """
    root = innermost(require_folder(root, "a task of the Decathlon"))
    description = root / "dataset.json"
    with reading(description, "the task's dataset.json with labels, modality and training"):
        content = json.loads(description.read_text(encoding="utf-8"))
        named = {int(label): str(name) for label, name in content["labels"].items()}
        channels = len(content["modality"])
        if split == "train":
            pairs = [(root / case["image"], root / case["label"]) for case in content["training"]]
        elif split == "test" and content.get("test"):
            files = [case["image"] if isinstance(case, dict) else case for case in content["test"]]
            pairs = [(root / file, None) for file in files]
        else:
            raise NoSuchSplit(f"{description}: expected cases for the split {split!r}, found none")
    if not pairs:
        raise DataError(f"{description}: expected at least one case, found an empty list")
    if sorted(named) != list(range(len(named))):
        raise DataError(f"{description}: expected labels 0 to {len(named) - 1}, found {sorted(named)}")
    for file in (file for pair in pairs for file in pair if file is not None):
        if not file.resolve().is_relative_to(root.resolve()):
            raise DataError(f"{description}: expected files within {root}, found {file}")
        if not file.is_file():
            raise DataError(f"{file}: expected this file, as {description} lists it, found none")
    images, labels = zip(*pairs, strict=True)
    names = [file.name.removesuffix(ENDINGS[1]).removesuffix(ENDINGS[0]) for file in images]
    classes = [named[label] for label in sorted(named)]
    if len(set(names)) != len(names):
        raise DataError(f"{description}: expected every case once, found {len(names) - len(set(names))} again")
    volumes = NiftiFiles(images, labels, names, classes, window=window, channels=channels)
    return Slices(volumes) if split == "train" and slices else volumes

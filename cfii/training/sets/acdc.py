"""ACDC: cardiac MRI at end-diastole and end-systole (Bernard et al. 2018), three structures."""

from __future__ import annotations

import re
from pathlib import Path

from cfii.training.arrays import ArrayFiles
from cfii.training.cases import CaseSet, Slices
from cfii.training.files import DataError, NoSuchSplit, read_list, reading, require_files, require_folder
from cfii.training.nifti import NiftiFiles

CLASSES = ("background", "right ventricle", "myocardium", "left ventricle")
# SSL4MIS's and WSL4MIS's lists, and the folders of its slices and volumes.
H5_LISTS = {"train": ("train_slices.list",), "val": ("val.list",), "test": ("test.list",)}
H5_FOLDERS = {
    2: ("ACDC_training_slices", "data/slices", "slices"),
    3: ("ACDC_training_volumes", "data", "volumes"),
}
# MT-UNet's lists and folders: slices but for the test.
NPZ = {"train": ("train", 2), "val": ("valid", 2), "test": ("test", 3)}
# The official archive.
NIFTI = {"train": "training", "test": "testing"}


def acdc(root: str | Path, split: str = "train") -> CaseSet:
    """ACDC in one of three layouts, found by looking. "train" gives slices; "val" and "test" give volumes (in
    MT-UNet's layout "val" gives slices).

    - SSL4MIS and WSL4MIS: `ACDC_training_slices/patient001_frame01_slice_0.h5` and
      `ACDC_training_volumes/patient001_frame01.h5` with `image` in [0, 1] and `label`; `train_slices.list`,
      `val.list`, `test.list`.
    - MT-UNet: `train/*.npz`, `valid/*.npz`, `test/*.npz` with `img` and `label`; `lists_ACDC/train.txt` …
    - the official archive: `training/patient001/patient001_frame01.nii.gz` and `…_gt.nii.gz`, likewise
      `testing/`. Each volume is clipped at its own 99th percentile and scaled to [0, 1], which gives SSL4MIS's
      images (see `nifti.upper_bound`). A list `train.list`, `val.list` or `test.list` of patients in the root,
      one a line, replaces the archive's own split (the paper splits the 100 training patients 70 to 30, at
      random, and does not list them).

    Raises:
        NoSuchSplit: the layout has no such split here.
        DataError: a file that is listed but missing; an empty list.
    """
    root = require_folder(root, "ACDC")
    if any((root / name).is_dir() for name in NIFTI.values()):
        return from_nifti(root, split)
    if (root / "lists_ACDC").is_dir():
        return from_npz(root, split)
    return from_h5(root, split)


def patient(name: str) -> str:
    """The patient of a file name; MT-UNet's names lead with the case as well."""
    found = re.match(r"(patient|case)_?\d+", name)
    return found[0] if found else name


def from_h5(root: Path, split: str) -> CaseSet:
    dimensions = 2 if split == "train" else 3
    places = [name for name in H5_FOLDERS[dimensions] if (root / name).is_dir()]
    (listed,) = (root / name for name in H5_LISTS[split])
    if not places or not listed.is_file():
        raise NoSuchSplit(
            f"{root}: expected {listed.name} and {H5_FOLDERS[dimensions][0]}/, or lists_ACDC/, or "
            f"{NIFTI.get(split, 'training')}/, for the split {split!r}, found none of these layouts complete"
        )
    names = read_list(listed, ".h5")
    return ArrayFiles(
        require_files(names, root / places[0], ".h5", listed),
        names,
        CLASSES,
        dimensions=dimensions,
        value_range=(0, 1),
        subject=patient,
    )


def from_npz(root: Path, split: str) -> CaseSet:
    folder, dimensions = NPZ[split]
    listed = root / "lists_ACDC" / f"{folder}.txt"
    if not listed.is_file():
        raise NoSuchSplit(f"{listed}: expected this list for the split {split!r}, found none")
    names = read_list(listed, ".npz")
    files = require_files(names, root / folder, ".npz", listed)
    return ArrayFiles(files, names, CLASSES, keys=("img", "label"), dimensions=dimensions, subject=patient)


def from_nifti(root: Path, split: str) -> CaseSet:
    listed = root / f"{split}.list"
    if listed.is_file():
        patients = [find_patient(root, name, listed) for name in read_list(listed)]
    elif split in NIFTI and (root / NIFTI[split]).is_dir():
        patients = sorted(path for path in (root / NIFTI[split]).iterdir() if path.is_dir())
        if not patients:
            raise DataError(f"{root / NIFTI[split]}: expected folders patient001 …, found none")
    else:
        raise NoSuchSplit(
            f"{root}: expected {listed.name} or {NIFTI.get(split, 'a folder')}/ for the split {split!r}"
        )
    images = [image for folder in patients for image in annotated_frames(folder)]
    labels = [file.with_name(file.name.replace(".nii", "_gt.nii")) for file in images]
    names = [file.name.partition(".nii")[0] for file in images]
    volumes = NiftiFiles(images, labels, names, CLASSES, subject=patient)
    return Slices(volumes) if split == "train" else volumes


def find_patient(root: Path, name: str, listed: Path) -> Path:
    for folder in NIFTI.values():
        if (root / folder / name).is_dir():
            return root / folder / name
    raise DataError(
        f"{root}: expected the folder {name} in training/ or testing/, as {listed} lists it, found none"
    )


def annotated_frames(folder: Path) -> list[Path]:
    """The images of end-diastole and end-systole, which `Info.cfg` numbers; each has its labels beside it."""
    info = folder / "Info.cfg"
    with reading(info, "lines such as 'ED: 1' and 'ES: 12'"):
        fields = dict(line.split(":", 1) for line in info.read_text(encoding="utf-8").splitlines() if ":" in line)
        frames = [int(fields[phase]) for phase in ("ED", "ES")]
    images = []
    for frame in frames:
        stem = f"{folder.name}_frame{frame:02d}"
        for end in ("", "_gt"):
            found = next(
                (f for ending in (".nii.gz", ".nii") if (f := folder / f"{stem}{end}{ending}").is_file()), None
            )
            if found is None:
                raise DataError(
                    f"{folder / (stem + end)}.nii.gz: expected this file, as {info} names it, found none"
                )
            if not end:
                images.append(found)
    return images

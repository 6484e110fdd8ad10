"""Any folder of images and masks: the layouts that people have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cfii.training.cases import CaseSet
from cfii.training.files import DataError, NoSuchSplit, require_folder
from cfii.training.images import ImageFiles, Pair, open_image

# Names of the folders with the images, and with the masks.
IMAGES = ("img", "image", "images", "imgs")
MASKS = ("labelcol", "mask", "masks", "label", "labels", "annotations")
# A mask beside its image may carry one of these (GlaS's original files: train_1.bmp, train_1_anno.bmp).
SUFFIXES = ("_mask", "_anno", "_label", "_labels", "_seg", "_gt")
# Other names of a split's folder.
SPLITS = {
    "train": ("Train_Folder", "train", "training"),
    "val": ("Val_Folder", "val", "valid", "validation"),
    "test": ("Test_Folder", "test", "testing"),
}


def folder(
    root: str | Path,
    split: str = "train",
    *,
    values: Sequence[int] | None = None,
    foreground: bool = False,
    classes: Sequence[str] | None = None,
    channels: int = 3,
) -> CaseSet:
    """Images and masks in whatever format Pillow reads, in one of these layouts, found by looking:

    - `img/` and `labelcol/` (also images, masks, labels …) with equal file names but for the extension;
    - `labelcol/<class>/`, one folder of binary masks for each class: multilabel;
    - masks named `<image>_<class>.png` or `<image>_<class>_000.png`, several for an image: multilabel, and a
      class without a mask is absent from that image (SAM-Med2D, TotalSegmentator);
    - side by side, `001.bmp` + `001.png` or `a.png` + `a_mask.png`; of a pair without such a suffix the mask is
      the one with a single channel and fewer values;
    - a folder for each image, holding `images/` and `masks/`, a mask for each object: their union (Data Science
      Bowl 2018).

    A folder that holds nothing but one other folder stands for that one. Where the root has a folder for each
    split (`Train_Folder`, `train`, …) the split's is taken; otherwise all is "train".

    Args:
        values, foreground, classes, channels: see `ImageFiles`.

    Raises:
        NoSuchSplit: no folder for this split.
        DataError: no pairs, a missing or unreadable file, colour masks, a single class.
    """
    root = innermost(require_folder(root, "images and masks"))
    if any((root / name).is_dir() for names in SPLITS.values() for name in names):
        root = innermost(find_split(root, split))
    elif split != "train":
        raise NoSuchSplit(f"{root}: expected a folder {SPLITS[split][0]} for the split {split!r}, found none")
    return ImageFiles(find_pairs(root), values=values, foreground=foreground, classes=classes, channels=channels)


def find_split(root: Path, split: str) -> Path:
    for name in SPLITS[split]:
        if (root / name).is_dir():
            return root / name
    raise NoSuchSplit(
        f"{root}: expected a folder {SPLITS[split][0]} for the split {split!r}, found {list_folders(root)}"
    )


def list_folders(root: Path) -> str:
    return ", ".join(sorted(path.name for path in root.iterdir() if path.is_dir())) or "no folders"


def innermost(root: Path) -> Path:
    """The folder, or the one inside it as long as that is all it holds beside files that are no images."""
    inner = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    known = (*IMAGES, *MASKS, *(name for names in SPLITS.values() for name in names))
    lone = len(inner) == 1 and inner[0].name not in known and not list_files(root)
    return innermost(inner[0]) if lone and not (inner[0] / "masks").is_dir() else root


def find_pairs(root: Path) -> list[Pair]:
    """Every image with its mask or masks, in the order of their names."""
    images = next((root / name for name in IMAGES if (root / name).is_dir()), None)
    masks = next((root / name for name in MASKS if (root / name).is_dir()), None)
    if images or masks:
        if not (images and masks):
            raise DataError(
                f"{root / ('img' if masks else 'labelcol')}: expected the folder, as {root} has the other of "
                "img/ and labelcol/"
            )
        pairs = pairs_in_folders(images, masks)
    else:
        pairs = pairs_by_object(root) or pairs_side_by_side(root)
    if not pairs:
        raise DataError(
            f"{root}: expected img/ and labelcol/, or images and masks side by side (001.bmp + 001.png, a.png + "
            f"a_mask.png), found no masks; it holds {list_folders(root)}"
        )
    return pairs


def pairs_in_folders(images: Path, masks: Path) -> list[Pair]:
    pictures = by_stem(list_files(images))
    if not pictures:
        raise DataError(f"{images}: expected images, found none")
    classes = sorted(path for path in masks.iterdir() if path.is_dir() and not path.name.startswith("."))
    if classes:
        found = {path.name: match(pictures, by_stem(list_files(path)), path) for path in classes}
        return [
            Pair(stem, pictures[stem], {name: [files[stem]] for name, files in found.items()})
            for stem in sorted(pictures)
        ]
    files = list_files(masks)
    if not any(file.stem in pictures for file in files) and files:
        return pairs_by_class_suffix(pictures, files)
    truth = match(pictures, by_stem(files), masks)
    return [Pair(stem, pictures[stem], truth[stem]) for stem in sorted(pictures)]


def match(images: dict[str, Path], masks: dict[str, Path], where: Path) -> dict[str, Path]:
    for stem, image in images.items():
        if stem not in masks:
            raise DataError(f"{image}: expected a mask {stem}.* in {where}, found none")
    for stem, mask in masks.items():
        if stem not in images:
            raise DataError(f"{mask}: expected an image {stem}.* for this mask, found none")
    return masks


def pairs_by_class_suffix(images: dict[str, Path], masks: list[Path]) -> list[Pair]:
    """Masks named <image>_<class> or <image>_<class>_<number>; the longest image name that fits owns the mask."""
    found: dict[str, dict[str, list[Path]]] = {stem: {} for stem in images}
    for mask in masks:
        owners = [stem for stem in images if mask.stem.startswith(f"{stem}_")]
        if not owners:
            raise DataError(
                f"{mask}: expected the name of an image, and of a class behind it, found no such image"
            )
        stem = max(owners, key=len)
        name = re.sub(r"_\d+$", "", mask.stem[len(stem) + 1 :])
        # a_mask.png beside a_mask_2.png is one class without a name of its own
        name = "foreground" if f"_{name}" in SUFFIXES else name
        found[stem].setdefault(name, []).append(mask)
    for stem, classes in found.items():
        if not classes:
            raise DataError(f"{images[stem]}: expected at least one mask {stem}_<class>.*, found none")
    return [Pair(stem, images[stem], found[stem]) for stem in sorted(images)]


def pairs_by_object(root: Path) -> list[Pair]:
    """One folder for each image, as in the Data Science Bowl 2018."""
    pairs = []
    for case in sorted(path for path in root.iterdir() if (path / "images").is_dir()):
        images = list_files(case / "images")
        masks = list_files(case / "masks") if (case / "masks").is_dir() else []
        if len(images) != 1 or not masks:
            raise DataError(
                f"{case}: expected one image in images/ and at least one mask in masks/, found {len(images)} and "
                f"{len(masks)}"
            )
        pairs.append(Pair(case.name, images[0], {"object": masks}))
    return pairs


def pairs_side_by_side(root: Path) -> list[Pair]:
    files = list_files(root)
    suffixed = {}
    for file in files:
        for suffix in SUFFIXES:
            if file.stem.endswith(suffix) and len(file.stem) > len(suffix):
                suffixed[file.stem.removesuffix(suffix)] = file
    if suffixed:
        images = by_stem([file for file in files if file not in suffixed.values()])
        masks = match(images, suffixed, root)
        return [Pair(stem, images[stem], masks[stem]) for stem in sorted(images)]
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(file.stem, []).append(file)
    if all(len(group) == 1 for group in groups.values()):
        return []
    pairs = []
    for stem, group in sorted(groups.items()):
        if len(group) != 2:
            names = ", ".join(file.name for file in group)
            raise DataError(f"{group[0]}: expected one image and one mask of the name {stem}, found {names}")
        pairs.append(Pair(stem, *sorted(group, key=looks_like_a_mask)))
    return pairs


def looks_like_a_mask(file: Path) -> tuple[bool, int]:
    pixels = np.array(open_image(file))
    channels_differ = pixels.ndim == 3 and (pixels != pixels[..., :1]).any()
    return not channels_differ, -len(np.unique(pixels))


def list_files(root: Path) -> list[Path]:
    extensions = Image.registered_extensions()
    return sorted(p for p in root.iterdir() if p.suffix.lower() in extensions and not p.name.startswith("."))


def by_stem(files: list[Path]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for file in files:
        if file.stem in named:
            raise DataError(f"{file}: expected one file of this name, found {named[file.stem].name} as well")
        named[file.stem] = file
    return named

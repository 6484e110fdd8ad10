"""A folder of images and masks, checked before anything is trained on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

# A mask beside its image may carry one of these (GlaS's original files: train_1.bmp, train_1_anno.bmp).
MASK_SUFFIXES = ("_mask", "_anno", "_label", "_labels", "_seg", "_gt")
# More values than this in the masks of one folder are no labels (JPEG artefacts, photographs).
MAX_LABELS = 128


class FolderError(ValueError):
    """A folder that cannot be used; the message names the file and what is wrong with it."""


class Folder(Dataset):
    """Images and masks of one folder, as (image (3, size, size) float32 in [0, 1], labels (size, size) int64).

    Two layouts, in whatever format Pillow reads: `img/` and `labelcol/` with equal file names (their
    extensions may differ), or pairs side by side, `001.bmp` + `001.png` or `a.png` + `a_mask.png`. Of a side
    by side pair without such a suffix, the mask is the one with a single channel and fewer values. A folder
    that holds nothing but one other folder stands for that one.

    The values that occur in the masks are mapped to 0 … N-1 in sorted order: `values`. Images are resized
    bilinearly, masks by nearest neighbour. 16-bit and float images are scaled from their own range.

    Raises:
        FolderError: no pairs, a missing or unreadable file, sizes that differ, colour masks, a single class.
    """

    def __init__(self, root: str | Path, size: int = 96) -> None:
        self.root, self.size = Path(root), size
        if not self.root.is_dir():
            raise FolderError(f"{self.root}: expected a folder of images and masks, found none")
        self.root = innermost(self.root)
        self.pairs = find_pairs(self.root)
        found: set[int] = set()
        for image, mask in self.pairs:  # everything is opened once, so that training cannot fail on a file
            pixels, labels = read_image(image), read_mask(mask)
            if pixels.shape[:2] != labels.shape:
                raise FolderError(
                    f"{mask}: expected {size_of(pixels)}, like its image {image.name}, got {size_of(labels)}"
                )
            found |= set(np.unique(labels).tolist())
            if len(found) > MAX_LABELS:
                raise FolderError(
                    f"{mask}: expected label maps saved without loss (PNG, BMP, TIFF), found more than "
                    f"{MAX_LABELS} different values up to this mask"
                )
        self.values = sorted(found)
        if len(self.values) < 2:
            raise FolderError(
                f"{self.pairs[0][1]}: expected at least two classes, but every mask in {self.root} holds "
                f"only the value {self.values[0]}"
            )

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self.pairs[index]
        pixels = torch.from_numpy(read_image(image)).movedim(-1, 0)[None]
        labels = torch.from_numpy(np.searchsorted(self.values, read_mask(mask)))[None, None]
        size = (self.size, self.size)
        pixels = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)
        labels = torch.nn.functional.interpolate(labels.double(), size, mode="nearest-exact")
        return pixels[0], labels[0, 0].long()


def innermost(folder: Path) -> Path:
    """The folder, or the one inside it as long as that is all it holds beside files that are no images."""
    inner = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    lone = len(inner) == 1 and inner[0].name not in ("img", "labelcol") and not list_files(folder)
    return innermost(inner[0]) if lone else folder


def find_pairs(root: Path) -> list[tuple[Path, Path]]:
    """(image, mask) for every image, in the order of their names."""
    images, masks = root / "img", root / "labelcol"
    if images.is_dir() or masks.is_dir():
        for folder in (images, masks):
            if not folder.is_dir():
                raise FolderError(f"{folder}: expected the folder, as {root} has the other of img/ and labelcol/")
        pairs = match(files_by_stem(images), files_by_stem(masks), masks)
    else:
        pairs = pairs_side_by_side(root)
    if not pairs:
        inner = ", ".join(sorted(path.name for path in root.iterdir() if path.is_dir()))
        raise FolderError(
            f"{root}: expected img/ and labelcol/, or images and masks side by side (001.bmp + 001.png, a.png + "
            "a_mask.png), found no masks" + (f"; it holds the folders {inner}: pass one of them" if inner else "")
        )
    return pairs


def match(images: dict[str, Path], masks: dict[str, Path], where: Path) -> list[tuple[Path, Path]]:
    for stem, image in images.items():
        if stem not in masks:
            raise FolderError(f"{image}: expected a mask {stem}.* in {where}, found none")
    for stem, mask in masks.items():
        if stem not in images:
            raise FolderError(f"{mask}: expected an image {stem}.* for this mask, found none")
    return [(images[stem], masks[stem]) for stem in sorted(images)]


def pairs_side_by_side(root: Path) -> list[tuple[Path, Path]]:
    files = list_files(root)
    suffixed = {}
    for file in files:
        for suffix in MASK_SUFFIXES:
            if file.stem.endswith(suffix) and len(file.stem) > len(suffix):
                suffixed[file.stem.removesuffix(suffix)] = file
    if suffixed:
        others = [file for file in files if file not in suffixed.values()]
        return match(unique_stems(others), suffixed, root)
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(file.stem, []).append(file)
    if all(len(group) == 1 for group in groups.values()):
        return []
    pairs = []
    for stem, group in sorted(groups.items()):
        if len(group) != 2:
            names = ", ".join(file.name for file in group)
            raise FolderError(f"{group[0]}: expected one image and one mask of the name {stem}, found {names}")
        pairs.append(tuple(sorted(group, key=looks_like_a_mask)))
    return pairs


def looks_like_a_mask(file: Path) -> tuple[bool, int]:
    pixels = read(file)
    channels_differ = pixels.ndim == 3 and (pixels != pixels[..., :1]).any()
    return not channels_differ, -len(np.unique(pixels))


def list_files(folder: Path) -> list[Path]:
    extensions = Image.registered_extensions()
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in extensions and not p.name.startswith("."))


def files_by_stem(folder: Path) -> dict[str, Path]:
    return unique_stems(list_files(folder))


def unique_stems(files: list[Path]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for file in files:
        if file.stem in named:
            raise FolderError(f"{file}: expected one file of this name, found {named[file.stem].name} as well")
        named[file.stem] = file
    return named


def read(file: Path) -> np.ndarray:
    """The pixels as stored: (H, W) or (H, W, channels); palette indices for a palette image."""
    try:
        with Image.open(file) as image:
            image.load()
            return np.array(image)
    except Exception as error:  # Pillow raises many types on broken files
        raise FolderError(
            f"{file}: expected an image that Pillow reads, but {type(error).__name__}: {error}"
        ) from error


def read_image(file: Path) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1]."""
    try:
        with Image.open(file) as image:
            if image.mode[0] not in "IF":
                return np.array(image.convert("RGB"), dtype=np.float32) / 255
    except Exception as error:
        raise FolderError(
            f"{file}: expected an image that Pillow reads, but {type(error).__name__}: {error}"
        ) from error
    values = read(file).astype(np.float32)
    if not np.isfinite(values).all():
        raise FolderError(f"{file}: expected finite values, found NaN or infinity")
    values = (values - values.min()) / max(values.max() - values.min(), 1e-6)
    return np.repeat(values[..., None], 3, axis=2)


def read_mask(file: Path) -> np.ndarray:
    """(H, W) integers."""
    values = read(file)
    if values.ndim == 3:
        colours = values[..., :3] if values.shape[2] >= 3 else values[..., :1]
        if (colours != colours[..., :1]).any():
            raise FolderError(f"{file}: expected a mask with one value a pixel, found colours")
        values = colours[..., 0]
    if not np.array_equal(values, values.astype(np.int64)):
        raise FolderError(f"{file}: expected whole numbers in a mask, found fractions")
    return values.astype(np.int64)


def size_of(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"

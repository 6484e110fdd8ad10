"""Cases in image files: photographs, micrographs and their masks, in whatever format Pillow reads."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cfii.training.cases import Case, CaseSet, distinct, format_shape, format_values, whole_numbers
from cfii.training.files import DataError, reading

# More values than this in one set's masks are no labels (JPEG artefacts, photographs).
MAX_LABELS = 128
READABLE = "an image that Pillow reads"


@dataclass(frozen=True)
class Pair:
    """An image and its mask: one file of label values, or for each class the files whose union it is."""

    name: str
    image: Path
    mask: Path | Mapping[str, Sequence[Path]]


class ImageFiles(CaseSet):
    """Images with masks. Grey images are repeated to `channels`, colours averaged (ITU-R 601) if it is 1.

    8-bit images are scaled to [0, 1] by 1/255, those with more bits from their own range. Images turn as they are
    stored: a camera's orientation tag is not applied, as masks carry none.

    Args:
        pairs: what to read.
        values: the masks' values, in the order of the classes. None: found by reading all masks, and mapped to
            0 … N-1 in sorted order; a value that only one mask holds is then an error.
        foreground: two classes instead: 0, and whatever is larger (instance ids).
        classes: their names; by default made from the values, or those of the masks' files.
        channels: 3 or 1.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        values: Sequence[int] | None = None,
        foreground: bool = False,
        classes: Sequence[str] | None = None,
        channels: int = 3,
    ) -> None:
        if channels not in (1, 3):
            raise ValueError(f"channels: expected 1 or 3, got {channels}")
        self.pairs, self.channels, self.foreground = list(pairs), channels, foreground
        self.names = [pair.name for pair in self.pairs]
        per_class = [pair.mask for pair in self.pairs if isinstance(pair.mask, Mapping)]
        if per_class:
            self.values = None
            self.classes = tuple(sorted({name for mask in per_class for name in mask}))
            # One kind of object on a background is an ordinary binary mask.
            self.multilabel = len(self.classes) > 1
            if not self.multilabel:
                self.classes = ("background", *self.classes)
            return
        self.values = [0, 1] if foreground else find_values(self.pairs) if values is None else list(values)
        named = [f"mask value {value}" for value in self.values]
        self.classes = tuple(classes or (("background", "foreground") if foreground else named))
        if len(self.classes) != len(self.values):
            raise ValueError(f"classes: expected {len(self.values)} names, got {len(self.classes)}")

    def load(self, index: int) -> Case:
        pair = self.pairs[index]
        image = read_image(pair.image, self.channels)
        size = image.shape[1:]
        if isinstance(pair.mask, Mapping):
            first = next((files[0] for files in pair.mask.values() if files), pair.image)
            maps = [union(pair.mask.get(name, ()), size, pair.image) for name in self.classes]
            return Case(pair.name, image, np.stack(maps) if self.multilabel else maps[1], pair.image, first)
        mask = read_mask(pair.mask, size)
        require_size(mask, pair.mask, size, pair.image)
        return Case(pair.name, image, self.to_labels(mask, pair.mask), pair.image, pair.mask)

    def to_labels(self, mask: np.ndarray, file: Path) -> np.ndarray:
        if self.foreground:
            if mask.min() < 0 or len(distinct(mask)) > MAX_LABELS:
                raise DataError(
                    f"{file}: expected 0 and instance ids, found {format_values(distinct(mask))}: negative, "
                    f"or more than {MAX_LABELS} of them"
                )
            return (mask > 0).astype(np.uint8)
        wrong = np.setdiff1d(distinct(mask), self.values)
        if len(wrong):
            raise DataError(
                f"{file}: expected the mask values {format_values(self.values)}, found also "
                f"{format_values(wrong)}"
            )
        order = np.argsort(self.values)
        return order[np.searchsorted(self.values, mask, sorter=order)]


def find_values(pairs: Sequence[Pair]) -> list[int]:
    """All values of all masks, sorted.

    Raises:
        DataError: a single value; too many of them; or one in a single mask only, which is more often damage or
            an instance's number than a class.
    """
    holders: dict[int, list[Path]] = {}
    for pair in pairs:
        for value in distinct(read_mask(pair.mask, None)).tolist():
            holders.setdefault(value, []).append(pair.mask)
        if len(holders) > MAX_LABELS:
            raise DataError(
                f"{pair.mask}: expected label maps saved without loss (PNG, BMP, TIFF), found more than "
                f"{MAX_LABELS} different values up to this mask; for instance ids pass foreground=True"
            )
    values = sorted(holders)
    if len(values) < 2:
        raise DataError(
            f"{pairs[0].mask}: expected at least two classes, but every mask in {pairs[0].mask.parent} holds "
            f"only the value {format_values(values)}"
        )
    for value, files in holders.items():
        if len(files) == 1 and len(pairs) > 3:
            others = format_values([v for v in values if v != value])
            raise DataError(
                f"{files[0]}: expected values that other masks hold too ({others}), found {value} in this "
                f"mask alone; if it is a class, pass values={values if len(values) < 9 else '[…]'}, and for "
                "instance ids foreground=True"
            )
    return values


def union(files: Sequence[Path], size: tuple[int, int], image: Path) -> np.ndarray:
    """Whether any of the masks is larger than 0; no masks: nowhere."""
    found = np.zeros(size, dtype=bool)
    for file in files:
        mask = read_mask(file, size)
        require_size(mask, file, size, image)
        if len(distinct(mask)) > 2:
            raise DataError(
                f"{file}: expected a mask of 0 and one other value, found {format_values(distinct(mask))}"
            )
        found |= mask > 0
    return found


def require_size(mask: np.ndarray, file: Path, size: tuple[int, int], image: Path) -> None:
    if mask.shape != size:
        raise DataError(
            f"{file}: expected {format_shape(size)} (height x width), like its image {image.name}, found "
            f"{format_shape(mask.shape)}"
        )


def open_image(file: Path) -> Image.Image:
    with reading(file, READABLE):
        with Image.open(file) as image:
            image.verify()  # PNG's checksums, which load() skips
        with Image.open(file) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format in ("TIFF", "GIF", "PNG", "WEBP"):
                raise DataError(f"{file}: expected one image, found a stack of {frames}")
            image.load()
            return image


def read_image(file: Path, channels: int = 3) -> np.ndarray:
    """(channels, H, W) float32 in [0, 1]."""
    image = open_image(file)
    if image.mode[0] in "IF":
        values = np.array(image, dtype=np.float64)
        if not np.isfinite(values).all():
            raise DataError(f"{file}: expected finite values in the image, found NaN or infinity")
        low, high = values.min(), values.max()
        grey = (values - low) / (high - low if high > low else 1)
        return np.repeat(grey[None].astype(np.float32), channels, axis=0)
    pixels = np.array(image.convert("RGB" if channels == 3 else "L"), dtype=np.float32) / 255
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)) if channels == 3 else pixels[None]


def read_mask(file: Path, size: tuple[int, int] | None) -> np.ndarray:
    """(H, W) whole numbers: a mask's values, a palette image's indices, or 0 and 1 from an `.xml` of polygons.

    Args:
        size: (H, W) of the image, for polygons.
    """
    if file.suffix.lower() == ".xml":
        return read_polygons(file, size or (1, 1))
    with reading(file, READABLE):
        values = np.array(open_image(file))
    if values.ndim == 3:  # alpha does not count
        colours = values[..., :3] if values.shape[2] >= 3 else values[..., :1]
        if (colours != colours[..., :1]).any():
            raise DataError(f"{file}: expected a mask with one value a pixel, found colours")
        values = colours[..., 0]
    whole = whole_numbers(values, file)
    return whole.astype(np.uint8) if whole.dtype == bool else whole


def read_polygons(file: Path, size: tuple[int, int]) -> np.ndarray:
    """Aperio ImageScope's regions (MoNuSeg's annotations) as a mask: 1 inside any, their outlines included."""
    with reading(file, "an XML file of Annotations with Regions of Vertices"):
        text = file.read_text(encoding="utf-8-sig")
        if re.search(r"<!\s*(DOCTYPE|ENTITY)", text):
            raise DataError(
                f"{file}: expected annotations alone, found a document type, which may hide expansions"
            )
        regions = ElementTree.fromstring(text).findall(".//Region")
        polygons = [[(float(v.attrib["X"]), float(v.attrib["Y"])) for v in r.iter("Vertex")] for r in regions]
    if not polygons:
        raise DataError(f"{file}: expected at least one Region, found none")
    # Some annotators left single clicks behind, which enclose nothing.
    polygons = [polygon for polygon in polygons if len(polygon) >= 3]
    corners = np.concatenate([np.empty((0, 2)), *polygons])
    height, width = size
    beyond = 0.05 * max(size) + 1  # outlines may leave the image a little; a swapped file leaves it a lot
    if not np.isfinite(corners).all() or (
        size != (1, 1)
        and len(corners)
        and ((corners < -beyond).any() or (corners > (width + beyond, height + beyond)).any())
    ):
        raise DataError(f"{file}: expected regions within the image of {format_shape(size)}, found some outside")
    canvas = Image.new("1", (width, height))
    draw = ImageDraw.Draw(canvas)
    for polygon in polygons:
        draw.polygon(polygon, fill=1, outline=1)
    return np.array(canvas).astype(np.uint8)

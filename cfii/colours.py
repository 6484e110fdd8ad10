"""Colours of classes, and images and masks in them: what all pictures share. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

# Petroff's ten colours (2021), which colour-blind eyes tell apart as others do; the grey is the background's.
BACKGROUND = "#717581"
COLOURS = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#92dadd"),
    *("#e76300", "#b9ac70", "#a96b59", "#94a4a2"),
)


def palette(count: int, multilabel: bool = False) -> ListedColormap:
    """One colour a class; the first is the background's grey, unless `multilabel`.

    Up to ten classes (nine if multilabel) the colours are safe for colour-blind eyes. No larger number of colours
    is; they then differ as far as they can.
    """
    colours = list(COLOURS) if multilabel else [BACKGROUND, *COLOURS]
    if count <= len(colours):
        return ListedColormap(colours[:count])
    return ListedColormap(colormaps["nipy_spectral"](np.linspace(0.05, 0.95, count)))


def show_image(axis: Axes, image: np.ndarray) -> None:
    """(channels, H, W): colours if there are three, else the first channel in grey, over its own range."""
    if len(image) == 3:
        axis.imshow(image.transpose(1, 2, 0).clip(0, 1))
    else:
        axis.imshow(image[0], cmap="gray")


def show_labels(
    axis: Axes, label: np.ndarray, classes: Sequence[str], multilabel: bool, alpha: float = 0.5
) -> None:
    """Labels over what the axis shows; the background stays clear."""
    colours = palette(len(classes), multilabel)
    for i, mask in masks_of(label, classes, multilabel):
        if mask.any():
            layer = np.zeros((*mask.shape, 4))
            layer[mask] = (*colours(i)[:3], alpha)
            axis.imshow(layer, interpolation="nearest")


def show_outlines(axis: Axes, label: np.ndarray, classes: Sequence[str], multilabel: bool) -> None:
    """The border of each class in its colour, on white."""
    colours = palette(len(classes), multilabel)
    for i, mask in masks_of(label, classes, multilabel):
        if mask.any() and not mask.all():
            axis.contour(mask, [0.5], colors="white", linewidths=1.8)
            axis.contour(mask, [0.5], colors=[colours(i)], linewidths=0.8)


def masks_of(label: np.ndarray, classes: Sequence[str], multilabel: bool) -> Iterable[tuple[int, np.ndarray]]:
    """(index, mask) of each class but the background."""
    return enumerate(label) if multilabel else ((i, label == i) for i in range(1, len(classes)))


def shorten(name: str, length: int = 26) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"

"""The picture of `cfii predict --explain`: what the network did inside to make a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from cfii.training.inference import repeat_grey
from cfii.training.pictures import save
from cfii.training.resize import Resize
from cfii.visualize import explain


def explain_prediction(
    model: nn.Module,
    image: np.ndarray,
    labels: np.ndarray,
    file: Path,
    *,
    classes: Sequence[str],
    name: str,
    resize: Resize | None = None,
    roi_size: int | tuple[int, int] | None = None,
    multilabel: bool = False,
    in_channels: int | None = None,
) -> None:
    """Draw it into a file: of a volume, the slice with most labels; at the size at which the network sees it.

    Args:
        model: a network with CFII.
        image: (channels, H, W) or (channels, D, H, W), as `inference.predict` takes it.
        labels: as `inference.predict` gave them.
        file: the picture.
        classes: names.
        name: of the case, for the title.
        resize, roi_size, multilabel, in_channels: as for `inference.predict`. With `roi_size`, one window is
            drawn, around the middle of the labels.
    """
    if image.ndim == 4:
        axes = tuple(axis for axis in range(labels.ndim) if axis != labels.ndim - 3)
        plane = int((labels > 0).sum(axes).argmax())
        image, labels, name = image[:, plane], labels[..., plane, :, :], f"{name}, slice {plane}"
    image = repeat_grey(image, in_channels)
    if roi_size is not None:
        found = (labels > 0).any(0) if multilabel else labels > 0
        rows, columns = window(found, (roi_size, roi_size) if isinstance(roi_size, int) else roi_size)
        image = image[:, rows, columns]
        name = f"{name}, rows {rows.start} to {rows.stop - 1}, columns {columns.start} to {columns.stop - 1}"
    elif resize is not None:
        image = resize.image(np.ascontiguousarray(image)).numpy()
    save(explain(model, image, classes=classes, multilabel=multilabel, title=name), file)


def window(found: np.ndarray, size: tuple[int, int]) -> tuple[slice, slice]:
    """The window of this size, or what there is of it, around the middle of what was found, else of the image."""
    places = np.argwhere(found) if found.any() else np.argwhere(np.ones_like(found))
    starts = [
        int(np.clip(round(middle - extent / 2), 0, max(whole - extent, 0)))
        for middle, extent, whole in zip(places.mean(0), size, found.shape, strict=True)
    ]
    rows, columns = (
        slice(start, min(start + extent, whole))
        for start, extent, whole in zip(starts, size, found.shape, strict=True)
    )
    return rows, columns

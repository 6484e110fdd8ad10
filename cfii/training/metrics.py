r"""Dice, IoU and the 95th percentile of the Hausdorff distance of masks, and two protocols for empty ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

Protocol = Literal["paper", "strict"]
METRICS = ("dice", "iou", "hd95")


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    r"""$2|A \cap B| / (|A| + |B|)$ of two masks of any shape; NaN if both are empty."""
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return float(2 * np.count_nonzero(prediction & truth) / total) if total else float("nan")


def iou(prediction: np.ndarray, truth: np.ndarray) -> float:
    r"""$|A \cap B| / |A \cup B|$ (Jaccard); NaN if both are empty."""
    total = np.count_nonzero(prediction | truth)
    return float(np.count_nonzero(prediction & truth) / total) if total else float("nan")


def hd95(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """The 95th percentile of the distances from either mask's surface to the other's, as in medpy.

    The surface is what one erosion (faces only) takes away, so a voxel at the edge of the array belongs to it.
    The distances of both directions are pooled before the percentile (linear interpolation). MONAI takes the
    larger of two percentiles instead.

    Args:
        prediction, truth: masks of one shape.
        spacing: of the voxels along each axis; the unit of the result. None: voxels.

    Raises:
        ValueError: an empty mask, which has no surface.
    """
    if not (prediction.any() and truth.any()):
        raise ValueError(
            "prediction and truth: expected masks that are not empty, as an empty one has no surface"
        )
    return float(np.percentile(np.concatenate(surface_distances(prediction, truth, spacing)), 95))


def surface_distances(
    a: np.ndarray, b: np.ndarray, spacing: Sequence[float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """From each surface voxel of `a` to the nearest of `b`, and the other way round."""
    # A tree of surface voxels is as exact as a distance transform, and needs no volume of distances.
    scale = np.ones(a.ndim) if spacing is None else np.asarray(spacing)
    points = [surface(mask) * scale for mask in (a, b)]
    return KDTree(points[1]).query(points[0])[0], KDTree(points[0]).query(points[1])[0]


def surface(mask: np.ndarray) -> np.ndarray:
    """(points, dimensions): the coordinates of the voxels that an erosion takes away."""
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    inside = np.pad(mask[box], 1)
    edge = inside & ~ndimage.binary_erosion(inside)
    return np.argwhere(edge) - 1 + [part.start for part in box]


def score(
    prediction: np.ndarray,
    truth: np.ndarray,
    protocol: Protocol = "strict",
    spacing: Sequence[float] | None = None,
) -> tuple[float, float, float]:
    """(Dice, IoU, HD95) of one class in one case.

    Where a mask is empty:

    | prediction | truth | paper | strict |
    | --- | --- | --- | --- |
    | empty | empty | 0, 0, 0 | NaN: left out of every mean |
    | empty | not | 0, 0, 0 | 0, 0, the diagonal |
    | not | empty | 1, 1, 0 | 0, 0, the diagonal |

    "paper" is the rule of TransUNet's code, which published figures follow: an organ found where there is none
    counts as perfect, a missed one has a perfect distance. It counts voxels, whatever their size. "strict" never
    rewards a miss, and measures in `spacing`'s unit; the diagonal is the array's.

    Raises:
        ValueError: masks of two shapes, an unknown protocol.
    """
    prediction, truth = np.asarray(prediction, dtype=bool), np.asarray(truth, dtype=bool)
    if protocol not in get_args(Protocol):
        raise ValueError(f"protocol: expected one of {', '.join(get_args(Protocol))}, got {protocol!r}")
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction and truth: expected one shape, got {prediction.shape} and {truth.shape}")
    if spacing is not None and len(spacing) != truth.ndim:
        raise ValueError(f"spacing: expected {truth.ndim} numbers, one an axis, got {spacing!r}")
    spacing = None if protocol == "paper" else spacing
    found, there = prediction.any(), truth.any()
    if found and there:
        return dice(prediction, truth), iou(prediction, truth), hd95(prediction, truth, spacing)
    if protocol == "paper":
        return (1.0, 1.0, 0.0) if found else (0.0, 0.0, 0.0)
    if not found and not there:
        return (float("nan"),) * 3
    extent = np.array(truth.shape) * (1 if spacing is None else np.asarray(spacing))
    return 0.0, 0.0, float(np.linalg.norm(extent))

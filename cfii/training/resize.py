"""Bringing cases to the network's size, and predictions back to theirs."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

Rule = Literal["bilinear", "transunet", "legacy_mask_resize"]


class Resize:
    """To one size, by one of three rules.

    - "bilinear" (default): images bilinear with antialiasing, labels nearest; predictions come back as logits,
      bilinear, before the argmax.
    - "transunet": as the code of TransUNet and of those after it: images by cubic splines (overshoot is not
      clipped), labels nearest, both on a grid whose corners meet; predictions come back as labels, nearest.
    - "legacy_mask_resize": as the code of UCTransNet: images bilinear without antialiasing, and binary masks
      bilinear from {0, 255} and then > 0, which makes every object grow by what it touches. For comparison with
      published figures only.

    Args:
        size: height and width, or one number for both.
        rule: see above.
    """

    def __init__(self, size: int | tuple[int, int], rule: Rule = "bilinear") -> None:
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        if len(self.size) != 2 or not all(isinstance(n, int) and n > 0 for n in self.size):
            raise ValueError(f"size: expected a positive whole number or (height, width), got {size!r}")
        if rule not in get_args(Rule):
            raise ValueError(f"rule: expected one of {', '.join(get_args(Rule))}, got {rule!r}")
        self.rule = rule

    def image(self, image: np.ndarray) -> Tensor:
        """(..., H, W) float32 -> (..., *size)."""
        if image.shape[-2:] == self.size:
            return torch.from_numpy(np.ascontiguousarray(image))
        if self.rule == "transunet":
            planes = image.reshape(-1, *image.shape[-2:])
            resized = np.stack([zoom(plane, self.size, order=3) for plane in planes])
            return torch.from_numpy(resized.reshape(*image.shape[:-2], *self.size))
        return interpolate(torch.from_numpy(image), self.size, "bilinear", antialias=self.rule == "bilinear")

    def label(self, label: np.ndarray) -> Tensor:
        """(..., H, W) whole numbers -> (..., *size), the same dtype."""
        values = np.ascontiguousarray(label)
        if label.shape[-2:] == self.size:
            return torch.from_numpy(values)
        if self.rule == "transunet":
            planes = values.reshape(-1, *values.shape[-2:])
            resized = np.stack([zoom(plane, self.size, order=0) for plane in planes])
            return torch.from_numpy(resized.reshape(*label.shape[:-2], *self.size))
        floats = torch.from_numpy(values).float()
        if self.rule == "bilinear":
            return interpolate(floats, self.size, "nearest-exact").to(torch.from_numpy(values).dtype)
        if values.max(initial=0) > 1:
            raise ValueError(f"rule: 'legacy_mask_resize' is for binary masks, got labels up to {values.max()}")
        return (interpolate(255 * floats, self.size, "bilinear").round() > 0).to(torch.from_numpy(values).dtype)

    def back(self, logits: Tensor, size: tuple[int, int], multilabel: bool = False) -> np.ndarray:
        """Logits (B, N, h, w) -> labels (B, H, W) uint8, or (B, N, H, W) bool if multilabel, at `size`."""
        if self.rule != "transunet" and logits.shape[-2:] != size:
            logits = interpolate(logits.float(), size, "bilinear")
        labels = decide(logits, multilabel).cpu().numpy()
        if labels.shape[-2:] == size:
            return labels
        planes = labels.reshape(-1, *labels.shape[-2:])
        return np.stack([zoom(plane, size, order=0) for plane in planes]).reshape(*labels.shape[:-2], *size)


def decide(logits: Tensor, multilabel: bool = False) -> Tensor:
    """Labels of logits (B, N, H, W): (B, H, W) uint8, the largest class, or of one channel whether it is above 0;
    for multilabel networks (B, N, H, W) bool."""
    if multilabel:
        return logits > 0
    return (logits[:, 0] > 0).byte() if logits.shape[1] == 1 else logits.argmax(1).byte()


def zoom(plane: np.ndarray, size: tuple[int, int], order: int) -> np.ndarray:
    factors = [new / old for new, old in zip(size, plane.shape, strict=True)]
    if plane.dtype == bool:
        return zoom(plane.astype(np.uint8), size, order).astype(bool)
    return ndimage.zoom(plane, factors, order=order)


def interpolate(x: Tensor, size: tuple[int, int], mode: str, antialias: bool = False) -> Tensor:
    """F.interpolate of the last two axes, whatever is before them."""
    flat = x.reshape(1, -1, *x.shape[-2:])
    return F.interpolate(flat, size, mode=mode, antialias=antialias).reshape(*x.shape[:-2], *size)

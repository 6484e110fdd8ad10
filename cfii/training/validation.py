"""Dice while training: from counts of pixels, which add up over slices and processes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor


def count_pixels(prediction: Tensor, truth: Tensor, classes: int) -> Tensor:
    """For every sample and class: pixels in both, in the prediction, in the truth.

    Shapes:
        prediction, truth: labels (B, H, W), 0 the background and not counted; or masks (B, classes, H, W).
        -> (B, classes, 3) int64
    """
    if prediction.ndim == 3:
        labels = torch.arange(1, classes + 1, device=prediction.device)[None, :, None, None]
        prediction, truth = prediction[:, None] == labels, truth[:, None] == labels
    prediction, truth = prediction.bool(), truth.bool()
    return torch.stack([(m).sum((2, 3)) for m in (prediction & truth, prediction, truth)], dim=2)


def mean_dice(counts: Mapping[str, Tensor]) -> float:
    """Mean over the classes of the mean over the cases where the class is there or predicted.

    Args:
        counts: (classes, 3) of each sample, by name; slices of one volume are one case.
    """
    cases: dict[str, Tensor] = defaultdict(lambda: torch.zeros(()))
    for name, rows in counts.items():
        volume = re.sub(r"_slice_?\d+$", "", name)
        cases[volume] = cases[volume] + rows
    overlap, predicted, there = torch.stack(list(cases.values())).double().unbind(-1)
    dice = 2 * overlap / (predicted + there)  # NaN where a class is neither there nor predicted
    return dice.nanmean(0).nanmean().nan_to_num(0).item()

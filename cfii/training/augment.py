"""The paper's augmentation: random rotation and flipping, per sample, on the batch's device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class RotateFlip:
    """Half of the samples are turned by 0 to 3 quarters and then flipped along one axis; a quarter of them is
    rotated by -20 to 19 degrees; a quarter stays.

    The paper says "random rotation and flipping"; the probabilities are TransUNet's, whose code CFII-Net's data
    follows. Different from that code: what happens to a sample depends on the seed, the epoch and the sample
    alone, so that no worker repeats itself, and a resumed run goes on as if it had not stopped; it happens after
    resizing and, where the batch is there, on the GPU; and images are rotated bilinearly.

    Args:
        seed: another one gives other choices.
        legacy_nearest: rotate images by nearest neighbour too, as TransUNet's code does.

    Shapes:
        images: (B, C, H, W); labels: (B, H, W) or (B, N, H, W). Where H and W differ, quarters are left out. What
        comes from outside the image is 0.
    """

    def __init__(self, seed: int = 0, legacy_nearest: bool = False) -> None:
        self.seed, self.legacy_nearest = seed, legacy_nearest

    def __call__(
        self, images: Tensor, labels: Tensor, indices: Sequence[int] | Tensor, epoch: int
    ) -> tuple[Tensor, Tensor]:
        """The batch, each sample changed in its own way.

        Args:
            indices: of the samples in their set.
            epoch: counted from 0.
        """
        square = images.shape[-1] == images.shape[-2]
        choices = [self.choose(int(index), epoch) for index in indices]
        images, labels = images.clone(), labels.clone()
        rotated = [i for i, (_, _, angle) in enumerate(choices) if angle]
        if rotated:
            angles = torch.tensor([choices[i][2] for i in rotated])
            mode = "nearest" if self.legacy_nearest else "bilinear"
            images[rotated] = rotate(images[rotated], angles, mode)
            channels = labels[rotated].reshape(len(rotated), -1, *labels.shape[-2:])
            turned = rotate(channels.to(images.dtype), angles, "nearest")
            labels[rotated] = turned.reshape(labels[rotated].shape).to(labels.dtype)
        for i, (quarters, axis, _) in enumerate(choices):
            if axis is not None:
                quarters = quarters if square else quarters // 2 * 2
                for batch in (images, labels):
                    batch[i] = batch[i].rot90(quarters, (-2, -1)).flip(axis)
        return images, labels

    def choose(self, index: int, epoch: int) -> tuple[int, int | None, int]:
        """(quarters, axis of the flip or None, degrees) for a sample."""
        rng = np.random.default_rng([self.seed, epoch, index])
        if rng.random() < 0.5:
            return int(rng.integers(4)), int(rng.integers(2)) - 2, 0
        if rng.random() < 0.5:
            return 0, None, int(rng.integers(-20, 20))
        return 0, None, 0


def rotate(x: Tensor, degrees: Tensor, mode: str) -> Tensor:
    """Each (C, H, W) of the batch about its centre, anticlockwise as shown on a screen; degrees on the CPU."""
    height, width = x.shape[-2:]
    radians = degrees.double().deg2rad()
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    # Where a pixel of the result comes from, in coordinates from -1 to 1 along either axis.
    rows = [cos, -sin * height / width, zero, sin * width / height, cos, zero]
    theta = torch.stack(rows, dim=1).view(-1, 2, 3).to(x)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode=mode, padding_mode="zeros", align_corners=False)

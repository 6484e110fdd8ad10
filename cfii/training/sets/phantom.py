"""A seeded phantom of abdominal slices: the demo data, with no image that anyone owns.

Nine classes in the order of the Synapse data set. Organs vary in place, size, rotation, outline, intensity
and texture; a bias field and noise lie over the slice. It is a toy: it looks enough like a CT slice to show
that a network learns, and says nothing about accuracy on patients.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cfii.training.cases import Case, CaseSet
from cfii.training.sets.synapse import CLASSES

# label, centre (x, y), radii, intensity, probability of being in the slice. x and y run from -1 to 1, right and
# down; a patient's left is on the right, as radiologists look at it. Later organs lie over earlier ones.
ORGANS = (
    (5, (-0.40, -0.15), (0.40, 0.38), 0.62, 1.00),
    (8, (0.30, -0.32), (0.28, 0.20), 0.50, 0.90),
    (7, (0.62, 0.02), (0.15, 0.26), 0.60, 0.90),
    (4, (-0.42, 0.34), (0.14, 0.18), 0.68, 0.90),
    (3, (0.42, 0.34), (0.14, 0.18), 0.68, 0.90),
    (6, (0.06, 0.00), (0.26, 0.08), 0.55, 0.90),
    (2, (-0.20, -0.22), (0.09, 0.12), 0.42, 0.75),
    (1, (0.05, 0.26), (0.07, 0.07), 0.74, 1.00),
)


class Phantom(CaseSet):
    """`length` slices in [0, 1] (before noise) with labels; slice i depends on seed and i alone."""

    classes = CLASSES
    channels = 1

    def __init__(self, length: int, size: int = 96, seed: int = 0) -> None:
        if length < 1 or size < 16:
            raise ValueError(f"length and size: expected at least 1 and 16, got {length} and {size}")
        self.length, self.size, self.seed = length, size, seed
        self.names = [f"phantom{index:04d}" for index in range(length)]

    def load(self, index: int) -> Case:
        image, labels = draw(np.random.default_rng([self.seed, index]), self.size)
        return Case(self.names[index], image[None], labels, Path(self.names[index]))


def phantom(root: str | Path | None = None, split: str = "train", *, size: int = 96) -> CaseSet:
    """The demo data: 400 slices to train on, 32 to validate, 64 to test; nothing is read, `root` is not used."""
    seeds = {"train": (400, 1), "val": (32, 3), "test": (64, 2)}
    length, seed = seeds[split]
    return Phantom(length, size, seed)


def draw(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One slice: image in about [0, 1] and labels 0 … 8."""
    y, x = np.meshgrid(*2 * [np.linspace(-1, 1, size)], indexing="ij")
    x, y = x + rng.normal(0, 0.03), y + rng.normal(0, 0.03)  # the patient lies a little off centre
    image = np.zeros((size, size))
    labels = np.zeros((size, size), dtype=np.int64)

    skin = blob(rng, x, y, (0, 0), (0.92, 0.74), wobble=0.02)
    wall = blob(rng, x, y, (0, 0), (0.85, 0.66), wobble=0.02)
    image[skin] = 0.25  # fat
    image[wall] = 0.40 + 0.03 * smooth_noise(rng, size, 6)[wall]
    for place in rng.uniform((-0.6, -0.5), (0.6, 0.4), (6, 2)):  # bowel: like organs, but background
        image[wall & blob(rng, x, y, place, rng.uniform(0.04, 0.12, 2), 0.1)] = rng.uniform(0.3, 0.65)
    spine = blob(rng, x, y, (0, 0.45), (0.13, 0.12), wobble=0.08)
    image[spine] = 0.9

    for label, centre, radii, intensity, probability in ORGANS:
        shift, scale = rng.normal(0, 0.035, 2), rng.normal(1, 0.12, 2).clip(0.7, 1.3)
        inside = blob(rng, x, y, centre + shift, radii * scale, wobble=0.10) & wall & ~spine
        if rng.random() < probability:
            texture = 0.03 * smooth_noise(rng, size, size // 6)
            image[inside] = (intensity + rng.normal(0, 0.035) + texture)[inside]
            labels[inside] = label

    bias = 1 + 0.10 * smooth_noise(rng, size, 3)
    noisy = image * bias + rng.normal(0, 0.05, image.shape)
    return noisy.astype(np.float32), labels


def blob(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, centre: np.ndarray, radii: np.ndarray, wobble: float
) -> np.ndarray:
    """A rotated ellipse whose outline is bent by a few random harmonics."""
    angle = rng.normal(0, 0.25)
    u, v = x - centre[0], y - centre[1]
    u, v = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
    u, v = u / radii[0], v / radii[1]
    theta = np.arctan2(v, u)
    outline = np.ones_like(theta)
    for k in range(2, 6):
        outline += rng.normal(0, wobble / k) * np.cos(k * theta + rng.uniform(0, 2 * np.pi))
    return np.hypot(u, v) < outline


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Standard normal values on a coarse grid, interpolated to the size of the slice."""
    coarse = torch.from_numpy(rng.normal(size=(1, 1, max(cells, 2), max(cells, 2))))
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")[0, 0].numpy()

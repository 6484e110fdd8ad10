"""Colours that colour-blind eyes tell apart."""

import numpy as np
import pytest

from cfii.colours import palette

# What is left of linear RGB without one kind of cone (Machado, Oliveira and Fernandes 2009, severity 1).
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.3039],
    ],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(linear):
    """CIE L*a*b* of linear RGB."""
    xyz = linear @ XYZ.T / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = f.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize(("count", "multilabel"), [(2, False), (9, False), (10, False), (9, True)])
def test_told_apart(sight, count, multilabel):
    """By at least 17 units of L*a*b* (tab10: 4.6)."""
    colours = palette(count, multilabel)(np.arange(count))[:, :3]
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = lab(np.clip(linear @ np.transpose(SIGHT[sight]), 0, 1))
    distances = np.linalg.norm(seen[:, None] - seen[None], axis=2)
    assert distances[~np.eye(count, dtype=bool)].min() > 17


@pytest.mark.parametrize("multilabel", [False, True])
def test_as_many_as_there_are(multilabel):
    for count in (1, 9, 10, 11, 60):
        colours = palette(count, multilabel)(np.arange(count))
        assert len(np.unique(colours, axis=0)) == count

"""The main job, small: it ends, prints Dice for both networks and leaves a picture."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "examples" / "quickstart.py"


def run(*arguments):
    command = [sys.executable, str(SCRIPT), "--steps", "3", "--size", "32", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def assert_shows(result, picture, *words):
    assert result.returncode == 0, result.stderr
    for word in ("plain", "CFII", "Dice", *words):
        assert word in result.stdout
    assert np.array(Image.open(picture)).std() > 10


def test_phantom(tmp_path):
    result = run("--out", tmp_path / "a.png")
    assert_shows(result, tmp_path / "a.png", "pancreas", "mean of classes 1 to 8")


def test_folder(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(10):
        truth = np.zeros((40, 36), np.uint8)
        truth[10 + i : 25 + i, 8:20] = 255
        Image.fromarray(truth // 2 + rng.integers(0, 60, truth.shape, dtype=np.uint8)).save(tmp_path / f"{i}.bmp")
        Image.fromarray(truth).save(tmp_path / f"{i}_mask.png")
    assert_shows(
        run("--data", tmp_path, "--out", tmp_path / "out" / "a.png"), tmp_path / "out" / "a.png", "mask value 255"
    )


def test_real_images(tmp_path, real_data):
    assert_shows(
        run("--data", real_data / "wbc", "--out", tmp_path / "a.png"),
        tmp_path / "a.png",
        "mask value 128, mask value 255",
    )


@pytest.mark.parametrize("content", ["missing", "empty"])
def test_bad_folder_ends_with_one_line(tmp_path, content):
    folder = tmp_path / content
    if content == "empty":
        folder.mkdir()
    result = run("--data", folder)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and str(folder) in result.stderr and result.stderr.count("\n") == 1

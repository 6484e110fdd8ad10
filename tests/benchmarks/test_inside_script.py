"""The numbers and the picture of docs/inside.md: the script runs, and the page says what was measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import inside

ROOT = Path(__file__).parents[2]


def test_the_script_at_a_tiny_size(tmp_path):
    arguments = ["--steps=2", "--size=16", "--batch=4", "--widths", "8", "16", "--device=cpu"]
    files = [f"--json={tmp_path / 'a.json'}", f"--picture={tmp_path / 'a.png'}"]
    command = [sys.executable, str(ROOT / "benchmarks" / "inside.py"), *arguments, *files]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    results = json.loads((tmp_path / "a.json").read_text())["results"]
    assert list(results) == list(inside.RUNS) and inside.markdown(results) in printed
    for row in results.values():
        assert row["strides"] == [1, 2] and row["kinds"] == ["CIT", "CIT"]
        assert all(0 <= overlap <= 1 for overlap in row["gate_overlap"])
        assert all(distance >= 0 for when in row["euclidean"].values() for distance in when)
        assert all(0 <= distance <= 1.125 for when in row["cosine"].values() for distance in when)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "P" and min(picture.size) > 600


def test_the_page_says_what_was_measured():
    results = json.loads((ROOT / "benchmarks" / "results" / "inside.json").read_text())["results"]
    page = (ROOT / "docs" / "inside.md").read_text(encoding="utf-8")
    assert inside.markdown(results) in page, "run benchmarks/inside.py and put its table into the page"
    assert (ROOT / "docs" / "assets" / "inside.png").stat().st_size < 300_000


def test_the_page_shows_the_tables_of_today():
    import cfii

    page = (ROOT / "docs" / "inside.md").read_text(encoding="utf-8")
    assert str(cfii.summary(cfii.create_model("resunet", num_classes=9), 224)) in page


def test_measures_of_one_network():
    import torch

    torch.manual_seed(0)
    from cfii import create_model
    from cfii.inside import gate_overlap, look_inside

    model = create_model("resunet", 3, 1, widths=(8, 16)).eval()
    images, labels = torch.rand(2, 1, 16, 16), torch.randint(0, 3, (2, 16, 16))
    row = inside.measure(model, images, labels)
    overlap = gate_overlap(look_inside(model, images), labels)
    assert row["gate_overlap"] == pytest.approx(overlap[:, 1:].mean(1).tolist())
    predicted = model(images).argmax(1)
    dice = [
        2 * ((predicted == i) & (labels == i)).sum() / ((predicted == i).sum() + (labels == i).sum())
        for i in (1, 2)
    ]
    assert row["dice"] == pytest.approx(float(sum(dice)) / 2)

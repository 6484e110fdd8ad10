"""The benchmarks of networks and of the neck run end to end at tiny sizes, and their records are complete."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
TINY = ["--device", "cpu", "--repeats", "2", "--size", "32", "--batches", "1"]
MEASURED = {
    *("network", "task", "mode", "precision", "batch", "shape", "peak_MiB", "latency_median_ms", "images_per_s"),
    *("images_per_s_q1", "images_per_s_q3", "GFLOP", "GB_moved", "roofline_ms", "of_matrix_ceiling"),
    *("of_copy_ceiling", "matrix_ceiling_TFLOP_per_s", "copy_ceiling_GB_per_s"),
}


def run(script, *arguments, code=0):
    command = [sys.executable, str(FOLDER / script), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == code, result.stderr
    return result.stdout if code == 0 else result.stderr


def results(file):
    record = json.loads(file.read_text())
    assert {"device", "threads", "torch", "timm", "cfii", "python", "command", "date"} <= record["machine"].keys()
    return record["results"]


def assert_complete(rows):
    for row in rows:
        assert row.keys() >= MEASURED, row.get("error", MEASURED - row.keys())
        assert row["peak_MiB"] > 0 and row["images_per_s_q1"] <= row["images_per_s"] <= row["images_per_s_q3"]
        assert ("saved_MiB" in row) == (row["task"] == "training")


def test_backbones_and_plots(tmp_path):
    file, model = tmp_path / "backbones.json", "resunet:widths=[8,16]"
    printed = run("backbones.py", *TINY, "--model", model, "--only", "resunet:*", "--json", file)
    found = results(file)
    assert list(found["networks"]) == [model, f"{model} + CFII"]
    assert [(r["network"], r["task"]) for r in found["rows"]] == [
        (name, task) for task in ("inference", "training") for name in found["networks"]
    ]
    assert_complete(found["rows"])
    assert [(r["baseline"], r["task"]) for r in found["ratios"]] == [(model, "inference"), (model, "training")]
    assert f"{model} + CFII / {model}, training" in printed
    run("plots.py", file, "--to", tmp_path)
    assert (tmp_path / "backbones-networks.svg").read_text().count("<svg") == 1


def test_neck_and_plots(tmp_path):
    file = tmp_path / "neck.json"
    small = ["--widths", 8, 16, "--class-counts", 2, 9, "--sizes", 16, 32, "--large-stride", 8]
    printed = run("neck.py", *TINY, *small, "--json", file)
    found = results(file)
    assert list(found) == ["modules", "classes", "resolution", "width", "ceiling"]
    for rows in found.values():
        assert_complete(rows)
    names = {row["network"] for row in found["modules"]}
    assert {"ECEG", "SIT", "CIT", "CEU", "FEU", "iterator", "whole neck", "whole neck, literal"} <= names
    assert {row["network"] for row in found["classes"]} == {"N = 2", "N = 9"}
    assert all(row["operators"] for row in found["ceiling"])
    assert "N = 2" in printed and "x faster; saved" in printed
    run("plots.py", file, "--to", tmp_path)
    assert len(list(tmp_path.glob("neck-*.svg"))) == 3


def test_checkout(tmp_path):
    """A checkout by its shape: what it imports from itself is its own, and `.cuda()` does nothing on the CPU."""
    (tmp_path / "network.py").write_text(
        "import torch, helper\n"
        "class AttU_Net(torch.nn.Module):\n"
        "    def __init__(self, img_ch, output_ch):\n"
        "        super().__init__()\n"
        "        self.conv = torch.nn.Conv2d(img_ch, output_ch, helper.SIZE).cuda()\n"
        "    def forward(self, x):\n"
        "        return self.conv(x.cuda())\n"
    )
    (tmp_path / "helper.py").write_text("SIZE = 1\n")
    file = tmp_path / "peers.json"
    run("peers.py", *TINY, "--checkout", f"AttUNet={tmp_path}", "--only", "AttUNet", "--json", file)
    found = results(file)
    assert_complete(found["rows"])
    assert found["networks"]["AttUNet"]["parameters_M"] == pytest.approx(36e-6)


def test_wrong_calls(tmp_path):
    message = run("peers.py", *TINY, "--checkout", f"TransUNet={tmp_path}", code=1)
    assert (
        f"--checkout TransUNet: expected a checkout with the file networks/vit_seg_modeling.py, got {tmp_path}"
        in (message)
    )
    assert "--checkout: expected NAME=PATH" in run("peers.py", *TINY, "--checkout", "ResNet=here", code=1)
    assert "--modes: expected CUDA for 'graph'" in run("neck.py", *TINY, "--modes", "graph", code=1)
    assert "--only: expected patterns of modules, classes" in run("neck.py", *TINY, "--only", "sit", code=1)

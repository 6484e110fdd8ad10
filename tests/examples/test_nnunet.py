"""nnU-Net's own commands with the trainer, on a phantom: plan, train, predict.

nnunetv2 is no requirement of the tests: it asks for an older timm than the newest.
"""

import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scripts import FOLDER, load

pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed")


# The trainer, for twelve steps only.
QUICK = """
import sys, torch
sys.path.insert(0, {folder!r})
from nnUNetTrainerCFII import nnUNetTrainerCFII

class nnUNetTrainerQuick(nnUNetTrainerCFII):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 3, 4, 1
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("nnunet")
    names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    environment = os.environ | {name: str(root / name) for name in names}
    environment |= {
        "nnUNet_extTrainer": str(root / "trainers"),
        "nnUNet_n_proc_DA": "1",
        "nnUNet_def_n_proc": "1",
    }

    (root / "trainers").mkdir()
    (root / "trainers" / "quick.py").write_text(QUICK.format(folder=str(FOLDER / "nnunet")))

    def call(command, *arguments, **variables):
        program = [str(Path(sys.executable).parent / command)]
        command_line, own = [*program, *map(str, arguments)], environment | variables
        result = subprocess.run(command_line, env=own, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    call.root = root
    return call


def test_plan_train_predict(run, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(run.root / "nnUNet_raw"))
    data = load("nnunet/raw_dataset").main(["--cases", "7"])  # six to train on: five folds need five
    run("nnUNetv2_plan_and_preprocess", "-d", 900, "-c", "2d", "-np", 1, "-npfp", 1, "--verify_dataset_integrity")
    train = ("nnUNetv2_train", 900, "2d", 0, "-tr", "nnUNetTrainerQuick", "-device", "cpu")
    output = run(*train, nnUNet_n_proc_DA="0")  # in one process; planning needs at least one
    losses = [float(line.split("train_loss")[1]) for line in output.splitlines() if "train_loss" in line]
    assert len(losses) == 3 and losses[-1] < losses[0]

    predictions = run.root / "predictions"
    options = ("-tr", "nnUNetTrainerQuick", "-d", 900, "-c", "2d", "-f", 0, "-device", "cpu")
    run("nnUNetv2_predict", "-i", data / "imagesTs", "-o", predictions, *options, "-npp", 0, "-nps", 0)
    for truth in sorted((data / "labelsTs").iterdir()):
        expected, found = (nibabel.load(folder / truth.name) for folder in (data / "labelsTs", predictions))
        assert found.shape == expected.shape and np.allclose(found.affine, expected.affine)
        assert set(np.unique(found.dataobj)) <= set(range(9))


def test_decathlon(run, monkeypatch, real_data):
    monkeypatch.setenv("nnUNet_raw", str(run.root / "nnUNet_raw"))
    task = real_data / "msd_hippocampus" / "Task04_Hippocampus"
    data = load("nnunet/raw_dataset").main(["--data", str(task), "--id", "904", "--cases", "10"])
    assert data.name == "Dataset904_Hippocampus"
    assert len(list((data / "imagesTr").iterdir())) == len(list((data / "labelsTr").iterdir())) == 8
    run("nnUNetv2_extract_fingerprint", "-d", 904, "-np", 1, "--verify_dataset_integrity")

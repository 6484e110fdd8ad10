"""Several processes (gloo, CPU) train and score like one."""

import csv
import json

import pytest
import torch
from command import OWN, TINY, run

from cfii.training.checkpoints import load_checkpoint

SETTINGS = [*TINY, *OWN, "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]


def fit(root, processes, batch_size):
    run(
        "fit",
        *SETTINGS,
        f"--trainer.default_root_dir={root}",
        f"--trainer.devices={processes}",
        f"--trainer.strategy={'ddp' if processes > 1 else 'auto'}",
        f"--data.batch_size={batch_size}",
        "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=3",
        "--model.lambda_eu=0.3",
        "--model.class_maps_weight=0.1",
        "--model.optimizer.class_path=torch.optim.SGD",
        "--model.optimizer.lr=0.01",
        "--model.lr_scheduler=null",
    )
    return load_checkpoint(root / "checkpoints" / "last.ckpt")


def test_two_processes_take_the_steps_of_one(tmp_path):
    """The same global batch gives the same gradients: Dice and cross-entropy are summed over the processes. DDP
    would stop at a parameter without a gradient."""
    one, two = fit(tmp_path / "one", 1, 8), fit(tmp_path / "two", 2, 4)
    assert one["global_step"] == two["global_step"] == 3
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], value, rtol=1e-4, atol=1e-5, msg=name)
    # validation covers each of the 32 samples once
    histories = [(tmp_path / name / "csv" / "version_0" / "metrics.csv").read_text() for name in ("one", "two")]
    dice = [
        [float(row["val_dice"]) for row in csv.DictReader(text.splitlines()) if row["val_dice"]]
        for text in histories
    ]
    assert dice[0] and dice[1] == pytest.approx(dice[0], abs=1e-3)

    # Three processes do not divide the 64 cases: none is scored twice, none is left out.
    for name, processes in (("one", 1), ("two", 3)):
        run(
            "test",
            *SETTINGS,
            f"--trainer.default_root_dir={tmp_path / name}",
            f"--ckpt_path={tmp_path / 'one' / 'checkpoints' / 'last.ckpt'}",
            f"--trainer.devices={processes}",
            f"--trainer.strategy={'ddp' if processes > 1 else 'auto'}",
        )
    a, b = (json.loads((tmp_path / n / "test" / "strict" / "scores.json").read_text()) for n in ("one", "two"))
    assert list(a["cases"]) == list(b["cases"]) and len(a["cases"]) == 64
    assert a["summary"] == b["summary"]

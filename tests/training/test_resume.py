"""A run that is killed goes on as if nothing had happened."""

import os
import time

import numpy as np
import pytest
import torch
from command import OWN, TINY, run, start
from kills import kill_during

from cfii.training.checkpoints import AtomicCheckpointIO, find_checkpoint, load_checkpoint
from cfii.training.files import DataError, SettingsError


def weights(root):
    return load_checkpoint(root / "checkpoints" / "last.ckpt")["state_dict"]


def test_a_killed_run_ends_bit_equal(tmp_path):
    """With dropout, augmentation, momentum and a schedule; killed three times, at any moment."""
    settings = [*TINY, *OWN, "--model.network.dropout=0.2", "--trainer.limit_train_batches=8"]
    settings += [
        "--trainer.max_epochs=12",
        "--trainer.limit_val_batches=1",
        "--trainer.enable_progress_bar=false",
    ]
    settings += ["--model.optimizer.class_path=torch.optim.SGD", "--model.optimizer.momentum=0.9"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run("fit", *settings, f"--trainer.default_root_dir={whole}")
    rng, last = np.random.default_rng(0), killed / "checkpoints" / "last.ckpt"
    epochs = []
    for _ in range(3):
        before = last.stat().st_mtime_ns if last.exists() else 0
        process = start("fit", *settings, f"--trainer.default_root_dir={killed}", "--ckpt_path=last")
        while process.poll() is None and (last.stat().st_mtime_ns if last.exists() else 0) <= before:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.6))
        process.kill()
        output = process.communicate()[0].decode()
        assert last.exists(), output
        epochs.append(load_checkpoint(last)["epoch"])  # whole, whenever it was killed
    assert epochs[0] < 11 and sorted(epochs) == epochs
    run("fit", *settings, f"--trainer.default_root_dir={killed}", "--ckpt_path=last")
    a, b = weights(whole), weights(killed)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert (killed / "curves.png").is_file()


def save_forever(path, done):
    checkpoint = {"state_dict": {"weight": torch.zeros(300_000)}}
    for i in range(1_000_000):
        checkpoint["state_dict"]["weight"].fill_(i)
        AtomicCheckpointIO().save_checkpoint(checkpoint, path)
        done.value = i + 1


def test_a_kill_while_a_checkpoint_is_written_loses_nothing(tmp_path):
    file, rng = tmp_path / "last.ckpt", np.random.default_rng(0)
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"weight": torch.zeros(300_000)}}, file)
    for _ in range(20):
        kill_during(save_forever, file, rng)
        weight = load_checkpoint(file)["state_dict"]["weight"]
        assert (weight == weight[0]).all()


class Hostile:
    def __reduce__(self):
        return os.system, ("touch hostile",)


def test_checkpoints_run_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Hostile()}, tmp_path / "a.ckpt")
    with pytest.raises(DataError, match=r"a\.ckpt: expected a checkpoint of cfii fit, but UnpicklingError"):
        load_checkpoint(tmp_path / "a.ckpt")
    assert not (tmp_path / "hostile").exists()
    (tmp_path / "b.ckpt").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"b\.ckpt: expected a checkpoint"):
        load_checkpoint(tmp_path / "b.ckpt")


def test_find_checkpoint(tmp_path):
    with pytest.raises(
        SettingsError, match=r"expected best or last\.ckpt in .*checkpoints, found none; train first"
    ):
        find_checkpoint(tmp_path, None)
    with pytest.raises(SettingsError, match="expected 'best', 'last' or a file, got x"):
        find_checkpoint(tmp_path, "x")
    (tmp_path / "checkpoints").mkdir()
    last, best = (tmp_path / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    last.touch()
    assert find_checkpoint(tmp_path, None) == last == find_checkpoint(tmp_path, "last")
    best.touch()
    assert find_checkpoint(tmp_path, None) == best and find_checkpoint(tmp_path, str(last)) == last

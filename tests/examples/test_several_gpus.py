import subprocess
import sys

import torch
from safetensors.torch import load_file
from scripts import FOLDER

# The example under torchrun, and what each process is left with.
DRIVER = """
import os, sys, torch
sys.path.insert(0, {folder!r})
import several_gpus
model, losses = several_gpus.main(sys.argv[1:])
torch.save((dict(model.named_parameters()), losses), "rank" + os.environ["RANK"] + ".pt")
"""


def test_two_processes_stay_one_network(tmp_path):
    (tmp_path / "driver.py").write_text(DRIVER.format(folder=str(FOLDER)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    launch += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
    result = subprocess.run(
        [*launch, "driver.py", "--size=32", "--out=a.safetensors"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("epoch 0: loss") == 1
    states, losses = zip(
        *(torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)), strict=True
    )
    saved = load_file(tmp_path / "a.safetensors")
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value), name
        assert torch.equal(saved[name], value), name
    assert len(losses[0]) == 400 // 8
    assert sum(losses[0][-5:]) < 0.8 * sum(losses[0][:5])
    assert losses[0] != losses[1]  # each saw its own part of the images

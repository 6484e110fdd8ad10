"""Checkpoints that survive a kill at any moment, and the folder of a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import TorchCheckpointIO

from cfii.training.files import SettingsError, reading, writing


class AtomicCheckpointIO(TorchCheckpointIO):
    """Each checkpoint is written beside its place, forced to the disk and renamed: a process that is killed
    while it writes leaves the old one whole. (Lightning's own writes to the system's temporary folder, which may
    be another disk, and copies from there.)"""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        with writing(path) as temporary, temporary.open("wb") as opened:
            torch.save(checkpoint, opened)
            opened.flush()
            os.fsync(opened.fileno())


def find_checkpoint(root: Path, wanted: str | Path | None) -> Path:
    """A checkpoint's file: a path as it is; "best" and "last" of the run in `root`; None: the best there is."""
    folder = root / "checkpoints"
    if wanted not in (None, "best", "last"):
        file = Path(wanted)
        if not file.is_file():
            raise SettingsError(f"ckpt_path: expected 'best', 'last' or a file, got {file}, which is none")
        return file
    for name in ("best", "last") if wanted is None else (wanted,):
        if (folder / f"{name}.ckpt").is_file():
            return folder / f"{name}.ckpt"
    raise SettingsError(
        f"ckpt_path: expected {wanted or 'best or last'}.ckpt in {folder}, found none; train first"
    )


def load_checkpoint(file: Path) -> dict[str, Any]:
    """Tensors and plain values only: nothing is unpickled that could run code."""
    with reading(file, "a checkpoint of cfii fit"):
        return torch.load(file, map_location="cpu", weights_only=True)

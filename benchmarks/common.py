"""What every benchmark shares: its options, models by name, and the record with machine and versions."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import sys
import time
from pathlib import Path

import torch

from cfii.training.files import writing

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # literal.py, the equations as printed
PACKAGES = ("torch", "timm", "segmentation-models-pytorch", "monai", "cfii")
# Settings of the C library's allocator, which decides how often large maps are paged in anew on a CPU.
MEMORY = ("MALLOC_", "LD_PRELOAD", "THP_MEM_ALLOC")


def arguments(description: str) -> argparse.ArgumentParser:
    sys.stdout.reconfigure(line_buffering=True)  # rows appear as they are measured, in a pipe as well
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, help="also write the record to this file")
    return parser


def parse_model(text: str) -> tuple[str, dict]:
    """`name:key=value,key=value`, the values JSON or plain words."""
    name, _, rest = text.partition(":")
    options = {}
    for pair in filter(None, re.split(r",(?=[a-z_]+=)", rest)):
        key, equals, value = pair.partition("=")
        if not equals:
            raise SystemExit(f"--model: expected NAME[:OPTION=VALUE,...], got {text!r}")
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    return name, options


def millions(module: torch.nn.Module) -> float:
    """Parameters in millions: weights and affine terms, no buffers."""
    return sum(p.numel() for p in module.parameters()) / 1e6


def neck_without_gradient(model: torch.nn.Module, images: torch.Tensor) -> list[str]:
    """The neck's parameters that the logits alone give no gradient, or one of zeros, in one backward."""
    logits = model.train()(images)
    (logits * torch.randn_like(logits)).mean().backward()
    return [n for n, p in model.neck.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def machine(device: str) -> dict[str, object]:
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].split(":", 1)[1].strip() if names else cpu
    return {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else cpu,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "cuda": torch.version.cuda if device.startswith("cuda") else None,
        "environment": {name: value for name, value in os.environ.items() if name.startswith(MEMORY)},
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
    }


def version(package: str) -> str | None:
    """None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def record(options: argparse.Namespace, results: object) -> None:
    """Write the results with machine and versions, whole or not at all."""
    if options.json is None:
        return
    text = json.dumps({"machine": machine(options.device), "results": results}, indent=1)
    with writing(options.json) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")

"""What every benchmark shares: interleaved timing, saved activations, multiply-accumulates, the record."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # literal.py, the equations as printed


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, help="also write the record to this file")
    return parser


def interleaved(runs: dict[str, Callable[[], object]], repeats: int, device: str) -> dict[str, dict[str, float]]:
    """Median and quartiles (seconds) of each run; the runs take turns, so all see the same machine."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 2):
        for name, run in runs.items():
            synchronize(device)
            start = time.perf_counter()
            run()
            synchronize(device)
            if turn >= 2:  # two turns to warm up
                seconds[name].append(time.perf_counter() - start)
    summary = {}
    for name, times in seconds.items():
        low, median, high = statistics.quantiles(times, n=4)
        summary[name] = {"median_s": median, "q1_s": low, "q3_s": high}
    return summary


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def saved_bytes(forward: Callable[[], object], parameters: list[torch.Tensor]) -> int:
    """Bytes of distinct storages that autograd keeps for the backward, parameters not counted."""
    own = {p.untyped_storage().data_ptr() for p in parameters}
    kept: dict[int, torch.Tensor] = {}  # the tensors are held, so that no storage is freed and counted twice

    def pack(x: torch.Tensor) -> torch.Tensor:
        if x.untyped_storage().data_ptr() not in own:
            kept[x.untyped_storage().data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        output = forward()
    total = sum(x.untyped_storage().nbytes() for x in kept.values())
    del output
    return total


def multiply_accumulates(model: torch.nn.Module, *inputs: torch.Tensor) -> int:
    """Of one forward, on the meta device (where attention is counted as the matrix products it is)."""
    model = model.to("meta").eval()
    with FlopCounterMode(display=False) as counter:
        model(*(x.to("meta") for x in inputs))
    return counter.get_total_flops() // 2


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
        "torch": torch.__version__,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
    }


def record(options: argparse.Namespace, results: object) -> None:
    """Write the results with machine and versions, whole or not at all."""
    if options.json is None:
        return
    text = json.dumps({"machine": machine(options.device), "results": results}, indent=1)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    temporary = options.json.with_suffix(".tmp")
    temporary.write_text(text + "\n")
    temporary.replace(options.json)

"""Interleaved timing: what is compared takes turns, so that all sides see the same machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def interleaved(
    runs: dict[str, Callable[[], object]], repeats: int, device: str, calls: int = 1, warm_up: int = 2
) -> dict[str, dict[str, float]]:
    """Median and quartiles of each run, in seconds a call.

    A turn of one run is `calls` calls between two synchronisations: one call gives the latency, several give the
    throughput of a device that works while the CPU already launches the next call. The first `warm_up` turns of
    every run are not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + warm_up):
        for name, run in runs.items():
            synchronize(device)
            start = time.perf_counter()
            for _ in range(calls):
                run()
            synchronize(device)
            if turn >= warm_up:
                seconds[name].append((time.perf_counter() - start) / calls)
    summary = {}
    for name, times in seconds.items():
        low, median, high = statistics.quantiles(times, n=4, method="inclusive")
        summary[name] = {"median_s": median, "q1_s": low, "q3_s": high}
    return summary

"""Interleaved timing: what is compared takes turns, so that all sides see the same machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

TURN = 0.05


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def interleaved(
    runs: dict[str, Callable[[], object]], repeats: int, device: str, wait: bool = True, warm_up: int = 1
) -> dict[str, dict[str, float]]:
    """Median and quartiles of each run, in seconds a call.

    A turn of a run is as many calls as fill `TURN` seconds, at least one, so that a short run does not pay for
    the caches that the one before it left behind. With `wait` CUDA is synchronised after every call, which gives
    the latency; without, only after the last, which gives the throughput of a device that works while the CPU
    already launches the next call. The first `warm_up` turns, at least one, are not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    calls = dict.fromkeys(runs, 1)
    for turn in range(-max(warm_up, 1), repeats):
        for name, run in runs.items():
            synchronize(device)
            start = time.perf_counter()
            for _ in range(calls[name]):
                run()
                if wait:
                    synchronize(device)
            synchronize(device)
            taken = (time.perf_counter() - start) / calls[name]
            if turn >= 0:
                seconds[name].append(taken)
            else:
                calls[name] = max(1, min(1000, round(TURN / taken)))
    summary = {}
    for name, times in seconds.items():
        low, median, high = statistics.quantiles(times, n=4, method="inclusive")
        summary[name] = {"median_s": median, "q1_s": low, "q3_s": high}
    return summary

"""Where the time of a step goes: each operator's measured time beside the least that the machine allows."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from cost import Ceiling, Counter
from torch.profiler import ProfilerActivity

PROFILES = 5  # their median counts


def operators(run: Callable[[], object], counter: Counter, ceiling: Ceiling, device: str) -> list[dict[str, Any]]:
    """The operators of `run`, which `counter` has counted, by the time they take (ms), longest first.

    "bound_ms" is the roofline of their calls, "ms" what they took, on CUDA in kernels. What a step takes beyond
    the sum of "ms" is spent between operators: in Python, in launches, in autograd.
    """
    names = {call.name for call in counter.calls}
    samples = [profiled(run, names, device.startswith("cuda")) for _ in range(PROFILES)]
    seconds = {name: statistics.median(sample[name] for sample in samples) for name in names}
    rows = []
    for name in names:
        calls = [call for call in counter.calls if call.name == name]
        rows.append(
            {
                **{"operator": name, "calls": len(calls), "ms": 1e3 * seconds[name]},
                **{"bound_ms": 1e3 * ceiling.bound(calls), "GFLOP": sum(c.flops for c in calls) / 1e9},
                "GB_moved": sum(c.bytes for c in calls) / 1e9,
            }
        )
    return sorted(rows, key=lambda row: -row["ms"])


def profiled(run: Callable[[], object], names: set[str], cuda: bool) -> defaultdict[str, float]:
    """Seconds of each operator in one run, what it calls included."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with torch.profiler.profile(activities=activities) as profile:
        run()
        if cuda:
            torch.cuda.synchronize()
    seconds: defaultdict[str, float] = defaultdict(float)
    for event in profile.events():
        if event.name in names and not any(parent.name in names for parent in parents(event)):
            seconds[event.name] += 1e-6 * (event.device_time_total if cuda else event.cpu_time_total)
    return seconds


def parents(event: Any) -> list[Any]:
    chain = []
    while event.cpu_parent is not None:
        event = event.cpu_parent
        chain.append(event)
    return chain


def show(rows: list[dict[str, Any]], first: int = 14) -> None:
    print(f"{'operator':52} {'calls':>6} {'ms':>9} {'bound ms':>9} {'GB':>8} {'GFLOP':>8}")
    total = {key: sum(row[key] for row in rows) for key in ("calls", "ms", "bound_ms", "GB_moved", "GFLOP")}
    for row in [*rows[:first], {"operator": "all operators", **total}]:
        print(
            f"{row['operator']:52} {row['calls']:6} {row['ms']:9.2f} {row['bound_ms']:9.2f} "
            f"{row['GB_moved']:8.3f} {row['GFLOP']:8.2f}"
        )

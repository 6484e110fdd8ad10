"""Memory of a step: what autograd keeps, and the most that is held at once."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable

import torch


def saved_bytes(forward: Callable[[], object], parameters: Iterable[torch.Tensor]) -> int:
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


def peak_bytes(run: Callable[[], object], device: str) -> int:
    """The most bytes that `run` holds at once, beyond what was held before it.

    On CUDA the peak of PyTorch's allocator. On the CPU the highest running sum of the allocations and frees of
    PyTorch's CPU allocator, in the order in which the profiler saw them: temporaries inside operators and the
    backward's are in it, scratch memory that a library takes from the system is not.
    """
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    # Not public, but the public table holds sums per operator only, and no order.
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def held_bytes(model: torch.nn.Module) -> int:
    """Bytes of parameters and buffers."""
    return sum(x.numel() * x.element_size() for x in [*model.parameters(), *model.buffers()])

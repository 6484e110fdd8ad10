"""Days in minutes: training steps and inference calls at changing sizes, with the memory they hold.

    python benchmarks/soak.py [--steps 2000] [--calls 5000] [--device cuda] [--json FILE]

Memory is the process's resident set (on CUDA also what PyTorch holds), after a garbage collection, at ten
points; the first is taken when every size has been seen. Then eight threads share one network in eval mode.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import common
import torch

from cfii import CFIILoss, create_model

SIZES = [(32, 32), (48, 40), (33, 65), (64, 64), (96, 56), (80, 80)]


def memory(device: str) -> dict[str, float]:
    """MiB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    held = {"resident": pages * 4096 / 2**20}
    if device.startswith("cuda"):
        held["cuda"] = torch.cuda.memory_allocated() / 2**20
    return held


def watch(step: Callable[[int], None], count: int, device: str) -> list[dict[str, float]]:
    points = []
    for i in range(count):
        step(i)
        if (i + 1) % max(count // 10, 1) == 0:
            points.append(memory(device))
    return points


def main() -> None:
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--calls", type=int, default=5000)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = create_model("resunet", 4, in_channels=1, widths=(8, 16, 32, 32)).to(options.device)
    criterion, optimizer = CFIILoss(4), torch.optim.AdamW(model.parameters(), lr=1e-3)
    inputs = [torch.randn(2, 1, *size, device=options.device) for size in SIZES]
    targets = [torch.randint(0, 4, (2, *size), device=options.device) for size in SIZES]

    def train(i: int) -> None:
        which = i % len(SIZES)
        optimizer.zero_grad()
        criterion(model(inputs[which], return_aux=True), targets[which]).backward()
        optimizer.step()

    @torch.inference_mode()
    def infer(i: int) -> None:
        model(inputs[i % len(SIZES)])

    results = {}
    for name, step, count in (("steps", train, options.steps), ("calls", infer, options.calls)):
        model.train(name == "steps")
        results[name] = {"count": count, "memory_MiB": watch(step, count, options.device)}
        first, last = results[name]["memory_MiB"][0], results[name]["memory_MiB"][-1]
        print(f"{count} {name}: " + ", ".join(f"{k} {first[k]:.1f} -> {last[k]:.1f} MiB" for k in first))

    with torch.inference_mode():
        expected = [model(x) for x in inputs]
        jobs = list(itertools.islice(itertools.cycle(range(len(SIZES))), 400))
        with ThreadPoolExecutor(8) as threads:
            outputs = list(threads.map(lambda i: run_alone(model, inputs[i]), jobs))
    largest = max((y - expected[i]).abs().max().item() for i, y in zip(jobs, outputs, strict=True))
    results["threads"] = {"threads": 8, "calls": len(jobs), "largest_difference": largest}
    print(f"8 threads, {len(jobs)} calls: largest difference from one thread {largest:.1e}")
    common.record(options, results)


def run_alone(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():  # a thread's own setting
        return model(x)


if __name__ == "__main__":
    main()

"""Networks compared on the same images in one run: precisions and batches swept, tables and ratios."""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import common
import torch
from sides import MODE_PARTS, PRECISIONS, TASKS, in_modes, measure
from torch import nn

from cfii import CFIILoss


class Network(NamedTuple):
    """A network to measure, and the names of those that its ratios are taken to."""

    name: str
    build: Callable[[], nn.Module]
    baselines: tuple[str, ...] = ()


def arguments(description: str, repeats: int) -> argparse.ArgumentParser:
    parser = common.arguments(description)
    parser.set_defaults(repeats=repeats)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="shell patterns of names")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--classes", type=int, default=9)
    parser.add_argument("--batches", type=int, nargs="+", default=[2])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, help="default: float32, on CUDA bf16")
    parser.add_argument(
        "--modes",
        nargs="+",
        metavar="MODE",
        help=f"eager, or any of {', '.join(MODE_PARTS)} joined with +; a network's best counts. "
        "Default: eager, on CUDA channels_last and channels_last+compile",
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    return parser


def settle(options: argparse.Namespace) -> argparse.Namespace:
    """The defaults that depend on the device; what the device cannot do is an error."""
    cuda = options.device.startswith("cuda")
    if cuda and not torch.cuda.is_available():
        raise SystemExit(f"--device: expected a device of this machine, got {options.device!r} without CUDA")
    options.precisions = options.precisions or (["bf16"] if cuda else ["float32"])
    options.modes = options.modes or (["channels_last", "channels_last+compile"] if cuda else ["eager"])
    for mode in options.modes:
        unknown = set(mode.split("+")) - set(MODE_PARTS)
        if mode != "eager" and unknown:
            raise SystemExit(f"--modes: expected eager, or {', '.join(MODE_PARTS)} joined with +, got {mode!r}")
        if "graph" in mode and not cuda:
            raise SystemExit(f"--modes: expected CUDA for {mode!r}, got --device {options.device}")
    if "tf32" in options.precisions and not cuda:
        raise SystemExit(f"--precisions: expected CUDA for 'tf32', got --device {options.device}")
    torch.backends.cudnn.benchmark = True  # autotuned while warming up, for every side alike
    return options


def selected(names: list[str], patterns: list[str]) -> list[str]:
    found = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    if not found:
        raise SystemExit(f"--only: expected patterns of {', '.join(names)}; got {' '.join(patterns)}")
    return found


def run(networks: list[Network], options: argparse.Namespace) -> dict[str, Any]:
    """Build, measure and print; {"networks", "rows", "ratios"}."""
    names = selected([n.name for n in networks], options.only)
    networks = [n for n in networks if n.name in names]
    models, facts = {}, {}
    for network in networks:
        torch.manual_seed(0)
        model = network.build().to(options.device)
        neck = getattr(model, "neck", None)
        models[network.name] = model
        facts[network.name] = {
            "baselines": network.baselines,
            "parameters_M": common.millions(model),
            "neck_M": 0.0 if neck is None else common.millions(neck),
        }
    rows, loss = [], CFIILoss(options.classes)
    for precision, batch, task in sweep(options):
        size = (options.size, options.size)
        images = torch.randn(batch, 3, *size, device=options.device)
        target = torch.randint(0, options.classes, (batch, *size), device=options.device)
        sides = [
            side
            for name, model in models.items()
            for side in in_modes(options.modes, name, model, [images], loss, target, precision=precision)
        ]
        group = measure(sides, task, options.repeats)
        show(group, facts)
        rows += group
    ratios = all_ratios(networks, rows)
    show_ratios(ratios)
    return {"networks": facts, "rows": rows, "ratios": ratios}


def sweep(options: argparse.Namespace) -> Iterator[tuple[str, int, str]]:
    for precision in options.precisions:
        for batch in options.batches:
            for task in options.tasks:
                yield precision, batch, task


def show(rows: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    first = rows[0]
    print(f"\n{first['task']}, input {first['shape']}, {first['precision']}")
    heads = ("images/s", "quartiles", "ms", "peak MiB", "GFLOP", "matrix", "copy")
    print("{:34} {:22} {:>8} {:>9} {:>15} {:>9} {:>9} {:>8} {:>7} {:>7}".format("", "mode", "M", *heads))
    for row in rows:
        name = f"{row['network']:34} {row['mode']:22} {facts[row['network']]['parameters_M']:8.2f}"
        if "error" in row:
            print(name, row["error"])
            continue
        quartiles = f"{row['images_per_s_q1']:.2f}-{row['images_per_s_q3']:.2f}"
        peak = f"{row['peak_MiB']:.0f}" if "peak_MiB" in row else "-"
        print(
            f"{name} {row['images_per_s']:9.2f} {quartiles:>15} {row['latency_median_ms']:9.1f} {peak:>9} "
            f"{row['GFLOP']:8.1f} {row['of_matrix_ceiling']:7.2f} {row['of_copy_ceiling']:7.2f}"
        )
    measured = [row for row in rows if "error" not in row]
    if measured:
        row = measured[0]
        print(
            f"matrix, copy: fraction of the machine's {row['matrix_ceiling_TFLOP_per_s']:.3g} TFLOP/s and "
            f"{row['copy_ceiling_GB_per_s']:.3g} GB/s, taken between the others"
        )


def best(rows: list[dict[str, Any]], **where: Any) -> dict[str, Any] | None:
    """The row of the fastest mode among those that agree with `where`."""
    fitting = [r for r in rows if "error" not in r and all(r[k] == v for k, v in where.items())]
    return max(fitting, key=lambda r: r["images_per_s"], default=None)


def all_ratios(networks: list[Network], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each network's images/s and peak memory over its baseline's, the best mode of both."""
    ratios = []
    groups = dict.fromkeys((r["precision"], r["batch"], r["task"]) for r in rows)
    for precision, batch, task in groups:
        where = {"precision": precision, "batch": batch, "task": task}
        for network, baseline in ((n, b) for n in networks for b in n.baselines):
            ours, theirs = (best(rows, network=name, **where) for name in (network.name, baseline))
            if ours is None or theirs is None:
                continue
            ratio = {
                **{"network": network.name, "baseline": baseline, **where},
                **{"mode": ours["mode"], "baseline_mode": theirs["mode"]},
                "images_per_s": ours["images_per_s"] / theirs["images_per_s"],
            }
            if "peak_MiB" in ours and "peak_MiB" in theirs:
                ratio["peak"] = ours["peak_MiB"] / theirs["peak_MiB"]
            ratios.append(ratio)
    return ratios


def show_ratios(ratios: list[dict[str, Any]]) -> None:
    for r in ratios:
        peak = f", {r['peak']:.2f} x the peak memory" if "peak" in r else ""
        modes = f"{r['mode']} / {r['baseline_mode']}"
        print(
            f"{r['network']} / {r['baseline']}, {r['task']}, batch {r['batch']}, {r['precision']} ({modes}): "
            f"{r['images_per_s']:.3f} x the images/s{peak}"
        )

"""CFII's modules against their literal form; growth with classes, resolution and width; the neck's ceiling.

    python benchmarks/neck.py [--only modules classes resolution width ceiling] [--json FILE]

- modules: ECEG, SIT, CIT, CEU, FEU, the iterator and the whole neck, at their shapes in CFII-ResUNet, against the
  equations as printed (tests/literal.py) on the same parameters. Training is forward and backward.
- classes, resolution, width: a whole training step of CFII-ResUNet without a loss. The resolution's batch is 1;
  every size is run with `--large-stride` as `sit_min_stride`, the option that bounds SIT's square, and up to 448²
  with the default.
- ceiling: the neck alone, and every operator's time beside the least that this machine allows for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import common
import compare
import literal
import operators
import torch
from cost import Ceiling
from sides import Side, in_modes, measure
from torch import Tensor, nn

from cfii import CEU, CIT, ECEG, FEU, SIT, create_model
from cfii.codecs.resunet import WIDTHS
from cfii.iterator import SIT_MIN_STRIDE


class Literal(nn.Module):
    """A module of the library, computed by the literal form of its equations."""

    def __init__(self, module: nn.Module, form: Callable[..., Any]) -> None:
        super().__init__()
        self.module, self.form = module, form

    def forward(self, *inputs: Any) -> Any:
        return self.form(self.module, *inputs)


class FeaturesAndEmbeddings(nn.Module):
    """A neck without its class maps, to which a training step gives no gradient by default."""

    def __init__(self, neck: nn.Module) -> None:
        super().__init__()
        self.neck = neck

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return self.neck(maps)[:2]


def resunet(options: argparse.Namespace, **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    arguments = {"num_classes": options.classes, "widths": options.widths} | changes
    return create_model("resunet", **arguments).to(options.device)


class Shapes:
    """Random inputs at the shapes of CFII-ResUNet's stages; each wants a gradient, as in a network."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.channels = options, [width // 2 for width in options.widths]

    def maps(self, i: int, width: int | None = None) -> Tensor:
        side = self.options.size >> i
        shape = (self.options.batch, width or self.channels[i], side, side)
        return torch.randn(shape, device=self.options.device, requires_grad=True)

    def embeddings(self, i: int) -> Tensor:
        shape = (self.options.batch, self.options.classes, self.channels[i])
        return torch.randn(shape, device=self.options.device, requires_grad=True)

    def full(self) -> list[Tensor]:
        return [self.maps(i, width) for i, width in enumerate(self.options.widths)]


def modules(options: argparse.Namespace, precision: str) -> list[dict[str, Any]]:
    shapes, n = Shapes(options), options.classes
    stages = range(len(shapes.channels))
    c, neck = shapes.channels, resunet(options).neck
    sit = min(2, len(c) - 1)  # the shallowest stage with SIT, stride 4: its longest sequence
    rest = {"features": [shapes.maps(i) for i in stages], "embeddings": [shapes.embeddings(i) for i in stages]}
    entries: dict[str, tuple[nn.Module, Callable[..., Any], list[Any]]] = {
        "ECEG": (ECEG(c[0], n), literal.eceg, [shapes.maps(0)]),
        "SIT": (SIT(c[sit]), literal.sit, [shapes.embeddings(sit), shapes.maps(sit)]),
        "CIT": (CIT(c[0]), literal.cit, [shapes.embeddings(0), shapes.maps(0)]),
        "CEU": (CEU(c[1], c[0]), literal.ceu, [shapes.embeddings(1), shapes.embeddings(0)]),
        "FEU": (FEU(c[1], c[0]), literal.feu, [shapes.maps(1), shapes.maps(0)]),
        "iterator": (neck.iterator, literal.iterate, list(rest.values())),
        "whole neck": (neck, literal.neck, [shapes.full()]),
    }
    rows = []
    for name, (module, form, inputs) in entries.items():
        module = module.to(options.device)
        ours, printed = module, Literal(module, form)
        if name == "whole neck":
            ours, printed = FeaturesAndEmbeddings(ours), FeaturesAndEmbeddings(printed)
        common_options = {"optimize": False, "precision": precision}
        sides = in_modes(options.modes, name, ours, inputs, **common_options)
        sides += in_modes(options.modes, f"{name}, literal", printed, inputs, **common_options)
        for task in options.tasks:
            group = measure(sides, task, options.repeats)
            rows += group
            show_pair(name, task, group)
    return rows


def show_pair(name: str, task: str, rows: list[dict[str, Any]]) -> None:
    ours, printed = compare.best(rows, network=name), compare.best(rows, network=f"{name}, literal")
    if ours is None or printed is None:
        return
    ratio = printed["latency_median_ms"] / ours["latency_median_ms"]
    line = f"{name:10} {task:10} {ours['latency_median_ms']:9.2f} ms, literal "
    line += f"{printed['latency_median_ms']:9.2f} ms: {ratio:6.2f} x faster"
    if task == "training":
        line += f"; saved {ours['saved_MiB']:.1f} MiB, literal {printed['saved_MiB']:.1f}: "
        line += f"{ours['saved_MiB'] / printed['saved_MiB']:.3f} x"
    print(line, flush=True)


def step_sides(options: argparse.Namespace, precision: str, name: str, model: nn.Module, size: int) -> list[Side]:
    images = torch.randn(options.batch, 3, size, size, device=options.device)
    return in_modes(options.modes, name, model, [images], precision=precision)


def classes(options: argparse.Namespace, precision: str) -> list[dict[str, Any]]:
    sides = []
    for n in options.class_counts:
        model = resunet(options, num_classes=n)
        sides += step_sides(options, precision, f"N = {n}", model, options.size)
    rows = measure(sides, "training", options.repeats)
    grown(rows, [f"N = {n}" for n in options.class_counts], relative_to="N = 9")
    return rows


def resolution(options: argparse.Namespace, precision: str) -> list[dict[str, Any]]:
    sides, names = [], {}
    for stride in (SIT_MIN_STRIDE, options.large_stride):
        sizes = [size for size in options.sizes if stride > SIT_MIN_STRIDE or size <= 448]
        names[stride] = [f"{size}², SIT from stride {stride}" for size in sizes]
        model = resunet(options, sit_min_stride=stride)
        for name, size in zip(names[stride], sizes, strict=True):
            sides += step_sides(options, precision, name, model, size)
    rows = measure(sides, "training", max(2, options.repeats // 2))
    for stride in names:
        grown(rows, names[stride], relative_to=f"224², SIT from stride {stride}")
    grown(rows, names[options.large_stride][-1:], relative_to=f"224², SIT from stride {SIT_MIN_STRIDE}")
    return rows


def width(options: argparse.Namespace, precision: str) -> list[dict[str, Any]]:
    sides, names = [], []
    for factor in (0.5, 1.0, 1.5):
        widths = [round(factor * w) for w in options.widths]
        names.append(f"widths x {factor}")
        for kind, cfii in (("", True), (", plain", False)):
            model = resunet(options, widths=widths, cfii=cfii)
            sides += step_sides(options, precision, names[-1] + kind, model, options.size)
    rows = measure(sides, "training", options.repeats)
    grown(rows, [name + kind for kind in ("", ", plain") for name in names], relative_to="widths x 1.0")
    return rows


def grown(rows: list[dict[str, Any]], names: list[str], relative_to: str) -> None:
    """Print the best mode's time and memory of each, and how often they are those of `relative_to`."""
    base = compare.best(rows, network=relative_to)
    for name in names:
        row = compare.best(rows, network=name)
        if row is None:
            continue
        line = f"{name:30} {row['mode']:22} {row['latency_median_ms']:9.1f} ms"
        if "peak_MiB" in row:
            line += f", peak {row['peak_MiB']:8.0f} MiB, saved {row['saved_MiB']:8.0f} MiB"
        if base is not None:
            line += f"; {row['latency_median_ms'] / base['latency_median_ms']:.2f} x the time of {relative_to}"
        print(line, flush=True)


def ceiling(options: argparse.Namespace, precision: str) -> list[dict[str, Any]]:
    neck, rows = FeaturesAndEmbeddings(resunet(options).neck), []
    for task in options.tasks:
        sides = in_modes(
            options.modes, "neck", neck, [Shapes(options).full()], optimize=False, precision=precision
        )
        group = measure(sides, task, options.repeats)
        for side, row in zip(sides, group, strict=True):
            if "error" in row:
                continue
            reached = Ceiling(1e12 * row["matrix_ceiling_TFLOP_per_s"], 1e9 * row["copy_ceiling_GB_per_s"])
            print(
                f"\nneck, {task}, {side.mode}: {1e3 * row['batch'] / row['images_per_s']:.2f} ms; operators one "
                f"by one need {row['roofline_ms']:.2f} ms at least; {row['of_copy_ceiling']:.2f} of the copy's "
                f"{row['copy_ceiling_GB_per_s']:.3g} GB/s, {row['of_matrix_ceiling']:.2f} of the matrix "
                f"product's {row['matrix_ceiling_TFLOP_per_s']:.3g} TFLOP/s"
            )
            if side.mode in ("eager", "channels_last"):  # what is compiled has other operators than were counted
                run = getattr(side, task)
                row["operators"] = operators.operators(run, side.count(task), reached, options.device)
                operators.show(row["operators"])
        rows += group
    return rows


SECTIONS = {f.__name__: f for f in (modules, classes, resolution, width, ceiling)}


def main() -> None:
    parser = compare.arguments(__doc__.splitlines()[0], repeats=7)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS, help="of CFII-ResUNet")
    parser.add_argument("--class-counts", type=int, nargs="+", default=[2, 9, 33, 65, 117])
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 224, 448, 896])
    parser.add_argument("--large-stride", type=int, default=16, help="sit_min_stride for large images")
    options = compare.settle(parser.parse_args())
    results: dict[str, list[dict[str, Any]]] = {}
    for name in compare.selected(list(SECTIONS), options.only):
        results[name] = []
        for precision in options.precisions:
            for batch in [1] if name == "resolution" else options.batches:
                print(f"\n{name}, batch {batch}, {precision}", flush=True)
                settings = argparse.Namespace(**vars(options), batch=batch)
                results[name] += SECTIONS[name](settings, precision)
        common.record(options, results)  # each section is kept, should a later one be interrupted


if __name__ == "__main__":
    main()

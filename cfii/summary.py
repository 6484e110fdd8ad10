"""`cfii.summary`: what a network consists of, stage by stage, and what each part costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from cfii.arguments import require_size
from cfii.cost import multiply_accumulates
from cfii.neck import StageOverview
from cfii.probe import device_of, dtype_of
from cfii.tables import table
from cfii.wrapper import require_codec

PARTS = ("encoder", "neck", "decoder", "head")


class Cost(NamedTuple):
    """Trained and fixed weights (no buffers), and multiply-accumulates for one image."""

    parameters: int
    macs: int


@dataclass(frozen=True)
class Summary:
    """What `cfii.summary` found; `print` shows it as tables.

    Attributes:
        name: of the network's class.
        num_classes: the number of output channels.
        image: (channels, height, width) that the multiply-accumulates are counted for.
        parts: "encoder", "neck", "decoder", "head", those that there are, and "total".
        stages: the encoder's, from shallow to deep, with the neck's parameters and multiply-accumulates at each;
            empty without a neck.
    """

    name: str
    num_classes: int
    image: tuple[int, int, int]
    parts: dict[str, Cost]
    stages: list[tuple[StageOverview, int]]

    def __str__(self) -> str:
        total, size = self.parts["total"], " x ".join(map(str, self.image))
        classes = "1 class" if self.num_classes == 1 else f"{self.num_classes} classes"
        lines = [f"{self.name}: {classes}; GMACs: 10^9 multiply-accumulates for one image of {size}", ""]
        rows = [
            (name, c.parameters, share(c.parameters, total.parameters), giga(c.macs), share(c.macs, total.macs))
            for name, c in self.parts.items()
        ]
        lines.append(table(("part", "parameters", "share", "GMACs", "share"), rows, "<>>>>"))
        if self.stages:
            neck = self.parts["neck"].macs
            rows = [
                (*s.cells(), giga(macs), share(macs, neck), share(macs, total.macs)) for s, macs in self.stages
            ]
            header = ("stage", "stride", "width", "interaction", "parameters", "GMACs", "of the neck", "of all")
            lines += ["", "The neck, stage by stage", table(header, rows, ">><<>>>>")]
        return "\n".join(lines)

    __repr__ = __str__


def giga(count: int) -> str:
    return f"{count / 1e9:.3f}" if count else "-"


def share(part: int, total: int) -> str:
    return f"{100 * part / total:.1f} %" if part else "-"


def summary(model: nn.Module, image_size: int | Sequence[int] | None = None) -> Summary:
    """Parameters and multiply-accumulates of a network's parts, and of its neck at every stage.

    Args:
        model: a `CFIIWrapper` or a network of `create_model`, with or without CFII; also compiled or in DDP. It
            runs once on the meta device (see `cfii.cost`), so it is cheap, and stays as it is.
        image_size: (height, width) or one number; by default the one size that the encoder takes, else 224.

    Raises:
        TypeError, ValueError: not such a network, or a size that it does not take.

    Examples:
        >>> print(cfii.summary(create_model("resunet", num_classes=9)))
    """
    model = require_codec(model)
    layout = model.layout
    size = require_size("image_size", image_size) or (layout.grid if layout.fixed else (224, 224))
    images = torch.zeros(1, model.in_channels, *size, device=device_of(model), dtype=dtype_of(model))
    macs = multiply_accumulates(model, images)
    parts = {name: getattr(model, name) for name in PARTS if getattr(model, name) is not None}
    costs = {name: Cost(parameters_of(part), macs.get(name, 0)) for name, part in parts.items()}
    stages = []
    if model.neck is not None:
        names = {module: f"neck.{name}" for name, module in model.neck.named_modules()}
        for row in model.neck.overview():
            part_of = model.stages.index(row.stage) if row.stage in model.stages else None
            modules = {} if part_of is None else model.neck.parts(part_of)
            stages.append((row, sum(macs.get(names[module], 0) for module in modules.values())))
    return Summary(
        name=type(model).__name__,
        num_classes=model.num_classes,
        image=(model.in_channels, *size),
        parts={**costs, "total": Cost(parameters_of(model), macs[""])},
        stages=stages,
    )


def parameters_of(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())

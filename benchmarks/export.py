"""Networks compiled and exported, and the largest difference of their logits from PyTorch's eager ones.

    python benchmarks/export.py [--model NAME[:OPTION=VALUE,...] ...] [--json benchmarks/results/export.json]

Three routes: `torch.compile(fullgraph=True, dynamic=True)`, and the files of `cfii.export`, .pt2 and ONNX. Each
is tried for any batch and size first, then, if that fails or takes longer than `--patience` seconds, for one.
The difference is in units of the largest logit: of another batch than the one traced, one image alone and, where
any size goes, a size off the network's grid. The sizes of Swin's windows have no end in torch's algebra, hence
the patience. `from_smp:architecture=FPN,...` wraps a built SMP model; other names are create_model's.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
import warnings
from pathlib import Path

import common
import segmentation_models_pytorch as smp
import torch

import cfii
from cfii.wrapper import Codec

exporting = importlib.import_module("cfii.export")  # the module, not the function of its name
CLASSES = 9
ROUTES = ("compile", "pt2", "onnx")
MODELS = [
    "resunet",
    "unet",
    "transunet",
    "swinunet",
    "timm-unet:encoder_name=convnext_atto",
    "smp-unet:encoder_name=resnet18",
    "smp-fpn:encoder_name=mit_b0",
    "smp-deeplabv3plus:encoder_name=mobilenet_v2",
    "smp-segformer:encoder_name=mit_b0",
    "smp-dpt:encoder_name=tu-vit_tiny_patch16_224",
    "smp-pspnet:encoder_name=resnet18",
    "smp-upernet:encoder_name=resnet18",
    "from_smp:architecture=Unet,encoder_name=resnet18",
    "from_smp:architecture=FPN,encoder_name=tu-convnext_atto",
]


def build(text: str, size: int) -> Codec:
    name, options = common.parse_model(text)
    if name == "from_smp":
        architecture = getattr(smp, options.pop("architecture"))
        return cfii.CFIIWrapper.from_smp(architecture(**options, encoder_weights=None, classes=CLASSES)).eval()
    if name in ("transunet", "swinunet"):
        options["image_size"] = size
    return cfii.create_model(name, CLASSES, **options).eval()


def compiled(model: Codec, size: int, backend: str, any_size: bool) -> float:
    """Compile as one graph and run; the largest relative difference."""
    torch._dynamo.reset()
    run = torch.compile(model, fullgraph=True, dynamic=any_size, backend=backend)
    shapes = [(2, size, size)]
    if any_size:
        shapes = [(2, size, size + model.layout.grid[1]), (1, size, size), (3, size + 1, size + 7)]
    difference = 0.0
    for batch, *extents in shapes:
        images = torch.randn(batch, model.in_channels, *extents)
        expected = model(images)
        difference = max(difference, ((run(images) - expected).abs().max() / expected.abs().max()).item())
    return difference


def try_compile(model: Codec, size: int, backend: str) -> tuple[str, float]:
    try:
        with exporting.time_limit(exporting.PATIENCE):
            return "any", compiled(model, size, backend, any_size=True)
    except (Exception, exporting.OutOfTimeError) as error:  # torch documents no common type
        print(f"  compile for any size: {exporting.short(error)}")
    return "one", compiled(model, size, backend, any_size=False)


def try_export(model: Codec, size: int, format: str) -> tuple[str, float]:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        exported = cfii.export(model, Path(folder) / f"model.{format}", image_size=size)
    for warning in said:
        if "for any size it failed" in str(warning.message):
            print(f"  {format}: {str(warning.message).split('as for ')[1]}")
    return "one" if exported.image_size else "any", exported.difference


def measure(model: Codec, route: str, options: argparse.Namespace) -> dict[str, object]:
    start = time.perf_counter()
    try:
        if route == "compile":
            sizes, difference = try_compile(model, options.size, options.backend)
        else:
            sizes, difference = try_export(model, options.size, route)
    except Exception as error:  # a record of what fails is what this is for
        return {"error": exporting.short(error)}
    return {"sizes": sizes, "difference": difference, "seconds": round(time.perf_counter() - start, 1)}


@torch.no_grad()
def main() -> None:
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", metavar="NAME[:OPTION=VALUE,...]")
    parser.add_argument("--routes", nargs="+", choices=ROUTES, default=ROUTES)
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--size", type=int, default=128, help="height and width of the example that is traced")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds for any size, before one size")
    options = parser.parse_args()
    options.device = "cpu"
    exporting.PATIENCE = options.patience
    results = {}
    for text in options.model or MODELS:
        torch.manual_seed(0)
        model = build(text, options.size)
        results[text] = {"parameters_M": round(common.millions(model), 2)}
        for route in options.routes:
            row = results[text][route] = measure(model, route, options)
            print(f"{text}, {route}: " + ", ".join(f"{key} {value}" for key, value in row.items()))
        settings = {"size": options.size, "backend": options.backend, "patience": options.patience}
        versions = {name: common.version(name) for name in ("onnx", "onnxscript", "onnxruntime")}
        common.record(options, {**settings, **versions, "networks": results})


if __name__ == "__main__":
    main()

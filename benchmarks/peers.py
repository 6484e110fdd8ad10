"""CFII-ResUNet beside the paper's peers and what SMP and MONAI offer, on the same images in one run.

    python benchmarks/peers.py [--checkout NAME=PATH ...] [--only 'CFII*' 'TransUNet' ...] [--json FILE]

U-Net (31 M), TransUNet and SwinUNet are this library's plain codecs, at the published sizes. `--checkout` adds a
network from a checkout of its authors' code, imported from PATH and never copied; NAME is one of TransUNet,
Swin-Unet, EMCAD, MISSFormer, UCTransNet, ScaleFormer, MT-UNet and AttUNet. The ratios are CFII-ResUNet's images/s
and peak memory over each peer's.
"""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path
from typing import Any

import checkouts
import common
import compare
import segmentation_models_pytorch as smp
from compare import Network
from monai.networks import nets as monai
from torch import nn

from cfii import create_model

OURS = "CFII-ResUNet"


def importable(classes: int, size: int) -> dict[str, partial[nn.Module]]:
    """What is installed: our plain codecs, SMP's and MONAI's networks, all for 3 channels and untrained."""
    codec = partial(create_model, num_classes=classes, cfii=False)
    by_smp = {"encoder_weights": None, "classes": classes}
    by_monai = {"spatial_dims": 2, "in_channels": 3, "out_channels": classes}
    widths = {"channels": (64, 128, 256, 512, 1024), "strides": (2, 2, 2, 2)}
    return {
        "U-Net": partial(codec, "unet"),
        "TransUNet (our codec)": partial(codec, "transunet", image_size=size),
        "SwinUNet (our codec)": partial(codec, "swinunet", image_size=size),
        "SMP Unet resnet34": partial(smp.Unet, "resnet34", **by_smp),
        "SMP UnetPlusPlus resnet34": partial(smp.UnetPlusPlus, "resnet34", **by_smp),
        "SMP Segformer mit_b2": partial(smp.Segformer, "mit_b2", **by_smp),
        "MONAI UNet": partial(monai.UNet, **by_monai, **widths, num_res_units=2),
        "MONAI AttentionUnet": partial(monai.AttentionUnet, **by_monai, **widths),
        "MONAI SwinUNETR": partial(swin_unetr, **by_monai, feature_size=24, img_size=(size, size)),
    }


def swin_unetr(img_size: tuple[int, int], **options: Any) -> nn.Module:
    """MONAI's SwinUNETR, which before MONAI 1.5 had to be told its size."""
    if "img_size" in inspect.signature(monai.SwinUNETR).parameters:
        options["img_size"] = img_size
    return monai.SwinUNETR(**options)


def parse_checkout(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or name not in checkouts.LOADERS:
        raise SystemExit(f"--checkout: expected NAME=PATH, NAME of {', '.join(checkouts.LOADERS)}, got {text!r}")
    checkouts.require_checkout(name, Path(path))  # before anything is timed
    return name, Path(path)


def main() -> None:
    parser = compare.arguments(__doc__.splitlines()[0], repeats=5)
    parser.add_argument("--checkout", action="append", default=[], metavar="NAME=PATH")
    options = compare.settle(parser.parse_args())
    builders = importable(options.classes, options.size)
    if options.checkout and not options.device.startswith("cuda"):
        checkouts.stay_on_cpu()
    for name, path in map(parse_checkout, options.checkout):
        builders[name] = partial(checkouts.load, name, path, options.classes)
    peers = [Network(name, build) for name, build in builders.items()]
    ours = Network(OURS, partial(create_model, "resunet", options.classes), tuple(builders))
    common.record(options, compare.run([ours, *peers], options))


if __name__ == "__main__":
    main()

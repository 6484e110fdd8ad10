"""Parameters, throughput and memory across backbones, with and without CFII.

    python benchmarks/backbones.py [--only 'resunet*' ...] [--model NAME[:OPTION=VALUE,...]] [--json FILE]

Every network with CFII is compared to its plain form at full width, in the same run: the reference codecs,
`create_model("smp-unet")` (half width) and `CFIIWrapper.from_smp` (full width) to `smp.Unet` itself, and timm's
encoders with our decoder. `--model`, which can be repeated, adds any network of create_model in both forms.
"""

from __future__ import annotations

from functools import partial

import common
import compare
import segmentation_models_pytorch as smp
from compare import Network
from torch import nn

from cfii import CFIIWrapper, create_model

REFERENCE = ("resunet", "unet", "transunet", "swinunet")
SMP_ENCODERS = ("resnet34",)
TIMM_ENCODERS = ("mobilenetv3_large_100", "convnext_tiny")


def pair(label: str, name: str, classes: int, size: int, **options: object) -> list[Network]:
    """The codec of create_model, plain and with CFII; a codec made for a size is built for `size`."""
    build = partial(create_model, name, classes, **options)
    if name in ("transunet", "swinunet"):
        build = partial(build, image_size=size)
    return [
        Network(label, partial(build, cfii=False)),
        Network(f"{label} + CFII", partial(build, cfii=True), (label,)),
    ]


def smp_trio(encoder: str, classes: int) -> list[Network]:
    """SMP's own U-Net, create_model's at half width, and the wrapped one at full width."""
    plain = f"smp.Unet {encoder}"

    def unet() -> nn.Module:
        return smp.Unet(encoder, encoder_weights=None, classes=classes)

    return [
        Network(plain, unet),
        Network(
            f"{plain} + CFII, half", partial(create_model, "smp-unet", classes, encoder_name=encoder), (plain,)
        ),
        Network(f"{plain} + CFII, full", lambda: CFIIWrapper.from_smp(unet()), (plain,)),
    ]


def main() -> None:
    parser = compare.arguments(__doc__.splitlines()[0], repeats=5)
    parser.add_argument("--model", action="append", default=[], metavar="NAME[:OPTION=VALUE,...]")
    options = compare.settle(parser.parse_args())
    classes, size = options.classes, options.size

    networks = [network for name in REFERENCE for network in pair(name, name, classes, size)]
    networks += [network for encoder in SMP_ENCODERS for network in smp_trio(encoder, classes)]
    for encoder in TIMM_ENCODERS:
        networks += pair(f"timm {encoder}", "timm-unet", classes, size, encoder_name=encoder)
    for text in options.model:
        name, arguments = common.parse_model(text)
        networks += pair(text, name, classes, size, **arguments)
    common.record(options, compare.run(networks, options))


if __name__ == "__main__":
    main()

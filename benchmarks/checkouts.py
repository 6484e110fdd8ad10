"""The published networks of the paper's comparison, from a user's checkout of their code: imported, never copied.

Each loader imports the network's class from the checkout and builds it untrained for 9 or any other number of
classes at 224 x 224 and three channels, without its pretrained weights.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor, nn


def transunet(classes: int) -> nn.Module:
    code = importlib.import_module("networks.vit_seg_modeling")
    config = code.CONFIGS["R50-ViT-B_16"]
    config.n_classes, config.n_skip, config.patches.grid = classes, 3, (14, 14)
    return code.VisionTransformer(config, img_size=224, num_classes=classes)


def swin_unet(classes: int) -> nn.Module:
    code = importlib.import_module("networks.swin_transformer_unet_skip_expand_decoder_sys")
    # Its constructor's default is a deeper decoder than the published configuration's.
    return code.SwinTransformerSys(num_classes=classes, depths=[2, 2, 2, 2], drop_path_rate=0.2)


def emcad(classes: int) -> nn.Module:
    return LastOutput(importlib.import_module("lib.networks").EMCADNet(num_classes=classes, pretrain=False))


def missformer(classes: int) -> nn.Module:
    return importlib.import_module("networks.MISSFormer").MISSFormer(num_classes=classes)


def uctransnet(classes: int) -> nn.Module:
    config = importlib.import_module("Config").get_CTranS_config()
    return importlib.import_module("nets.UCTransNet").UCTransNet(config, n_channels=3, n_classes=classes)


def scaleformer(classes: int) -> nn.Module:
    return importlib.import_module("networks.ScaleFormer").ScaleFormer(n_classes=classes)


def mt_unet(classes: int) -> nn.Module:
    return importlib.import_module("model.MTUNet").MTUNet(out_ch=classes)


def att_unet(classes: int) -> nn.Module:
    return importlib.import_module("network").AttU_Net(img_ch=3, output_ch=classes)


# The name that --checkout takes, the loader, and a file by which a checkout is known.
LOADERS: dict[str, tuple[Callable[[int], nn.Module], str]] = {
    "TransUNet": (transunet, "networks/vit_seg_modeling.py"),
    "Swin-Unet": (swin_unet, "networks/swin_transformer_unet_skip_expand_decoder_sys.py"),
    "EMCAD": (emcad, "lib/networks.py"),
    "MISSFormer": (missformer, "networks/MISSFormer.py"),
    "UCTransNet": (uctransnet, "nets/UCTransNet.py"),
    "ScaleFormer": (scaleformer, "networks/ScaleFormer.py"),
    "MT-UNet": (mt_unet, "model/MTUNet.py"),
    "AttUNet": (att_unet, "network.py"),
}


class LastOutput(nn.Module):
    """EMCAD gives four maps of logits; the last is its prediction, and the one that is compared."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)[-1]


def require_checkout(name: str, path: Path) -> None:
    """Raise SystemExit if the path is no checkout of the network `name`."""
    _, file = LOADERS[name]
    if not (path / file).is_file():
        raise SystemExit(f"--checkout {name}: expected a checkout with the file {file}, got {path}")


def load(name: str, path: Path, classes: int) -> nn.Module:
    """Build the network `name` from its checkout at `path`, see `require_checkout`.

    Raises:
        SystemExit: its code does not load here.
    """
    loader, file = LOADERS[name]
    try:
        with importing_from(path), contextlib.redirect_stdout(io.StringIO()):
            return loader(classes)
    except ImportError as error:
        raise SystemExit(
            f"--checkout {name}: expected what {path / file} imports to be installed, but {error}; pip install it"
        ) from error
    except Exception as error:  # foreign code may raise anything
        raise SystemExit(
            f"--checkout {name}: expected {path} to build the published network for {classes} classes at 224 x "
            f"224, but it failed with {type(error).__name__}: {error}"
        ) from error


@contextlib.contextmanager
def importing_from(path: Path) -> Iterator[None]:
    """The checkout first on the path of imports; what it loaded is forgotten, as checkouts share module names."""
    root, environment, known = str(path.resolve()), dict(os.environ), dict(sys.modules)
    sys.path.insert(0, root)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.path.remove(root)
        for name, module in list(sys.modules.items()):
            if name not in known and str(getattr(module, "__file__", None) or root).startswith(root):
                del sys.modules[name]
        os.environ.clear()  # one sets CUDA_VISIBLE_DEVICES
        os.environ.update(environment)


def stay_on_cpu() -> None:
    """Let a `.cuda()` in foreign code do nothing, in this process: some forwards say it, too."""
    Tensor.cuda = nn.Module.cuda = lambda self, *_, **__: self

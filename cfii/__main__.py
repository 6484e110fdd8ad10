"""`cfii` and `python -m cfii`: `--version`, `export`, and the command line of `cfii.training`."""

from __future__ import annotations

import argparse
import platform
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn, get_args

import cfii
from cfii.codecs import from_pretrained
from cfii.export import export
from cfii.formats import Format


class Parser(argparse.ArgumentParser):
    """Wrong settings end with one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {' '.join(message.split())}\n")


def export_command(arguments: list[str]) -> None:
    parser = Parser("cfii export", description="Write a network as a program that runs without cfii.")
    parser.add_argument("model", help="a folder of save_pretrained (a run's model/), or owner/name on the Hub")
    parser.add_argument("--format", choices=get_args(Format), default="onnx")
    parser.add_argument("--output", metavar="FILE", type=Path, help="by default named after MODEL, here")
    parser.add_argument("--image-size", type=int, nargs="+", metavar="N", help="height and width, or both in one")
    settings = parser.parse_args(arguments)
    size = settings.image_size
    output = settings.output or Path(f"{Path(settings.model).resolve().name}.{settings.format}")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        try:
            if settings.model.endswith(".ckpt"):
                raise ValueError(
                    f"model: expected a folder or owner/name, got the checkpoint {settings.model}, which does "
                    "not say what its network is; cfii fit leaves its best network in model/ in the run's folder"
                )
            network = from_pretrained(settings.model)
            exported = export(
                network, output, settings.format, image_size=size[0] if size and len(size) == 1 else size
            )
        except (ValueError, TypeError, ImportError, OSError) as error:
            parser.error(str(error))
    for warning in said:
        if str(warning.message).startswith("export: "):
            print(warning.message, file=sys.stderr)
    axes = ", ".join(exported.dynamic_axes)
    print(f"{exported.file}: dynamic {axes}; largest difference from PyTorch {exported.difference:.1e}")


def versions() -> str:
    """This package's version, and those that a report of an error needs."""
    others = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "segmentation-models-pytorch"))
    return f"cfii {cfii.__version__} (Python {platform.python_version()}, {others})"


def main() -> None:
    if sys.argv[1:] == ["--version"]:
        print(versions())
        return
    if sys.argv[1:2] == ["export"]:
        export_command(sys.argv[2:])
        return
    try:
        from cfii.training.cli import main as run
    except ImportError as error:
        sys.exit(f"error: the cfii command needs more packages ({error}): pip install 'cfii[train]'")
    run()


if __name__ == "__main__":
    main()

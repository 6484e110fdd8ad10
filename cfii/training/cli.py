"""The `cfii` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from cfii.training.check import check
from cfii.training.data import SegmentationData


class Parser(ArgumentParser):
    """Wrong settings end with one line and exit code 2."""

    def error(self, message: str, ex: Exception | None = None) -> None:
        fail(message)


def fail(message: object) -> None:
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(2)


def main(arguments: Sequence[str] | None = None) -> None:
    try:
        run(list(sys.argv[1:] if arguments is None else arguments))
    except ValueError as error:  # a setting or a file, named
        fail(error)


def run(arguments: list[str]) -> None:
    parser = Parser(prog="cfii", description="Class-embedding interaction for medical image segmentation.")
    commands = parser.add_subcommands()
    checking = Parser(description=check.__doc__.splitlines()[0])
    checking.add_class_arguments(SegmentationData, "data")
    checking.add_argument("--picture", type=Path, default=Path("check.png"), help="a mosaic of the cases")
    commands.add_subcommand("check", checking, help="read every file of a data set and report")
    settings = parser.parse_args(arguments)
    # jsonargparse 4.49 renamed it
    settings = getattr(parser, "instantiate", parser.instantiate_classes)(settings)
    if not check(settings.check.data, settings.check.picture):
        sys.exit(1)

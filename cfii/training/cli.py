"""The `cfii` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser

from cfii.training.check import check
from cfii.training.data import SegmentationData
from cfii.training.files import DataError


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        run(arguments)
    except (DataError, ValueError, ArgumentError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run(arguments: list[str]) -> None:
    parser = ArgumentParser(
        prog="cfii", description="Class-embedding interaction for medical image segmentation."
    )
    commands = parser.add_subcommands()
    checking = ArgumentParser(exit_on_error=False, description=check.__doc__.splitlines()[0])
    checking.add_class_arguments(SegmentationData, "data")
    checking.add_argument("--picture", type=Path, default=Path("check.png"), help="a mosaic of the cases")
    commands.add_subcommand("check", checking, help="read every file of a data set and report")
    settings = parser.parse_args(arguments)
    # jsonargparse 4.49 renamed it
    settings = getattr(parser, "instantiate", parser.instantiate_classes)(settings)
    if not check(settings.check.data, settings.check.picture):
        sys.exit(1)


if __name__ == "__main__":
    main()

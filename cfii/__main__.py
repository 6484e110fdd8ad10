"""`cfii` and `python -m cfii`: the command line of `cfii.training`."""

import sys


def main() -> None:
    try:
        from cfii.training.cli import main as run
    except ImportError as error:
        sys.exit(f"error: the cfii command needs more packages ({error}): pip install 'cfii[train]'")
    run()


if __name__ == "__main__":
    main()

"""Images a second that the input pipeline gives: read, checked, resized, batched, augmented; no network.

    python benchmarks/pipeline.py --data ../shared/data/paper224 [--workers 2] [--json FILE]

The recipes' own settings; each set is gone through until `--seconds` have passed, after one epoch that starts the
workers and fills the disk's cache.
"""

from __future__ import annotations

import time
from pathlib import Path

import common
import yaml

from cfii.training.augment import RotateFlip
from cfii.training.cli import find_recipe
from cfii.training.data import SegmentationData

SETS = {"glas": "GlaS", "monuseg": "MoNuSeg", "acdc": "ACDC"}


def measure(name: str, root: Path, workers: int, seconds: float) -> float:
    settings = yaml.safe_load(Path(find_recipe(name)).read_text())["data"]
    data = SegmentationData(**{**settings, "root": root, "num_workers": workers})
    loader, augment = data.train_dataloader(), RotateFlip()
    images, epoch, start = 0, 0, None
    while start is None or time.perf_counter() - start < seconds:
        for batch in loader:
            augment(batch["image"], batch["label"], batch["index"].tolist(), epoch)
            if start is not None:
                images += len(batch["image"])
        epoch += 1
        if start is None:
            start = time.perf_counter()
    return images / (time.perf_counter() - start)


def main() -> None:
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="with the folders GlaS, MoNuSeg and ACDC")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=15)
    options = parser.parse_args()
    results = {}
    for name, folder in SETS.items():
        results[name] = measure(name, options.data / folder, options.workers, options.seconds)
        print(f"{name:8} {results[name]:7.0f} images/s")
    common.record(options, results)


if __name__ == "__main__":
    main()

"""Every pyramid of timm's: does it build, and does one name of each family run, train and feed every parameter?

    python benchmarks/sweep.py [--names 'convnext*'] [--json benchmarks/results/sweep.json] [--table FILE]

Every name whose stages form a pyramid (strides from 1, 2 or 4 on, doubling, to 16 or more) is built on the meta
device as create_model("timm-unet", 4, encoder_name=...). Of each family (timm's source file) the smallest name is
then built for real, and makes one step of SGD on two random images; what is recorded is whether all parameters of
the neck have a non-zero gradient and whether another, non-square size works in eval mode. Names are added to the
JSON as they are done; a second run continues.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections import defaultdict
from pathlib import Path

import common
import timm
import torch

from cfii import create_model
from cfii.codecs.encoders import try_sizes
from cfii.training.files import writing


def strides_of(name: str) -> list[int]:
    return try_sizes(name, None, features_only=True)[0].feature_info.reduction()


def is_pyramid(strides: list[int]) -> bool:
    """From 1/1, 1/2 or 1/4 of the image's size, each stage half the one before, down to 1/16 or less."""
    return (
        strides[0] in (1, 2, 4) and strides == [strides[0] << i for i in range(len(strides))] and strides[-1] > 8
    )


def build(name: str) -> dict:
    """On the meta device."""
    start = time.perf_counter()
    try:
        with torch.device("meta"):
            model = create_model("timm-unet", 4, encoder_name=name)
    except Exception as error:  # recorded, whatever it is
        return {"error": f"{type(error).__name__}: {error}"}
    return {
        "widths": model.neck.in_channels,
        "stages": model.stages,
        "grid": model.layout.grid,
        "fixed": model.layout.fixed,
        "parameters_M": common.millions(model),
        "encoder_M": common.millions(model.encoder),
        "seconds": round(time.perf_counter() - start, 2),
    }


def train(name: str) -> dict:
    """One step for real, then another size."""
    try:
        model = create_model("timm-unet", 4, encoder_name=name)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        images = torch.randn(2, 3, *model.layout.grid if max(model.layout.grid) > 64 else (128, 128))
        dead = common.neck_without_gradient(model, images)
        optimizer.step()
        finite = all(p.isfinite().all().item() for p in model.parameters())
    except Exception as error:  # recorded, whatever it is
        return {"error": f"{type(error).__name__}: {error}"}
    result = {"trained": True, "without_gradient": dead, "finite": finite, "size": list(images.shape[2:])}
    try:
        with torch.no_grad():
            result["other_size"] = list(model.eval()(torch.randn(1, 3, 130, 161)).shape) == [1, 4, 130, 161]
    except Exception as error:  # an encoder made for one size
        result["other_size"] = f"{type(error).__name__}: {error}".splitlines()[0][:160]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", default="*", help="a shell pattern; by default all")
    parser.add_argument("--table", type=Path, help="write the table of families, as Markdown, to this file")
    parser.add_argument("--json", type=Path, default=Path("sweep.json"))
    options = parser.parse_args()
    options.device = "cpu"
    warnings.simplefilter("ignore")
    done = json.loads(options.json.read_text())["results"] if options.json.exists() else {}
    for name in timm.list_models(options.names):
        if name in done:
            continue
        strides = strides_of(name)
        family = timm.models._registry._model_to_module[name]
        done[name] = {"family": family, "strides": strides}
        if is_pyramid(strides):
            done[name] |= build(name)
        keep(options, done, name)

    families = defaultdict(list)
    for name, row in done.items():
        if "parameters_M" in row:
            families[row["family"]].append(name)
    for names in families.values():
        name = smallest(names, done)
        if "trained" not in done[name]:
            done[name] |= train(name)
            keep(options, done, name)

    built = [name for name, row in done.items() if "parameters_M" in row]
    pyramids = [name for name, row in done.items() if is_pyramid(row["strides"])]
    alive = [name for name in built if done[name].get("without_gradient") == [] and done[name]["finite"]]
    summary = (
        f"{len(built)} of {len(pyramids)} pyramid names build ({len(done)} names in all); the smallest names of "
        f"{len(alive)} of {len(families)} families train a step with a gradient for every parameter of the neck."
    )
    print(summary)
    if options.table:
        write_table(options.table, summary, done, families)


def keep(options: argparse.Namespace, done: dict, name: str) -> None:
    """Record all that is done, and say what came of this name."""
    common.record(options, done)
    print(name, {k: v for k, v in done[name].items() if k not in ("widths", "stages")}, flush=True)


def smallest(names: list[str], done: dict) -> str:
    """The name that represents its family."""
    return min(names, key=lambda name: done[name]["encoder_M"])


def write_table(path: Path, summary: str, done: dict, families: dict[str, list[str]]) -> None:
    """The families as Markdown."""
    lines = [
        "# timm's pyramids",
        "",
        f"timm {timm.__version__}, `python benchmarks/sweep.py --table docs/timm.md`. {summary}",
        "",
        "A family is a source file of timm's. *sizes*: any, multiples of a size, or up to one size; for other",
        "sizes build the encoder with `image_size=`. *trains*: the family's smallest name, one step of SGD.",
        "",
        "| family | names | smallest | encoder, M | sizes | trains |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for family, names in sorted(families.items()):
        name = smallest(names, done)
        row = done[name]
        grid = "×".join(map(str, row["grid"]))
        sizes = f"up to {grid}" if row["fixed"] else "any" if max(row["grid"]) < 160 else f"multiples of {grid}"
        dead = row.get("without_gradient")
        trains = (
            "yes" if dead == [] else f"{len(dead)} parameters without gradient" if dead else row["error"][:80]
        )
        lines.append(f"| {family} | {len(names)} | {name} | {row['encoder_M']:.1f} | {sizes} | {trains} |")
    with writing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

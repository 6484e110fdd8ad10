"""What a trained network does inside: do its class gates find the classes, do its class embeddings lie apart?

    python benchmarks/inside.py [--json benchmarks/results/inside.json] [--picture docs/assets/inside.png]

Small networks (the quickstart's CFII side) train on the generated phantom, once for each value of the paper's
lambda_EU, and once with the class maps supervised (`class_maps_weight`, which the paper does not have). On
held-back slices, by stage: soft Dice of the class gates with the truth, and the distance between class embeddings
before and after interaction, Euclidean (root mean square over all pairs) and 1 - cosine. The picture is of the
last network.
"""

from __future__ import annotations

from pathlib import Path

import common
import torch
from PIL import Image
from torch.utils.data import DataLoader

from cfii import CFIILoss, create_model
from cfii.inside import embedding_distances, gate_overlap, look_inside
from cfii.training.files import writing
from cfii.training.pictures import save
from cfii.training.resize import Resize
from cfii.training.samples import Samples
from cfii.training.sets import open_set
from cfii.visualize import explain

WIDTHS = [32, 64, 128, 128]
RUNS = {
    "lambda_EU = 0": {"lambda_eu": 0.0},
    "lambda_EU = 0.3": {"lambda_eu": 0.3},
    "class maps supervised": {"lambda_eu": 0.0, "class_maps_weight": 0.3},
}


def samples(split: str, size: int) -> Samples:
    return Samples(open_set("phantom", None, split, size=size), Resize(size))


def train(loss: dict[str, float], data: Samples, options) -> torch.nn.Module:
    torch.manual_seed(options.seed)
    classes = len(data.cases.classes)
    model = create_model("resunet", classes, in_channels=1, widths=options.widths)
    criterion = CFIILoss(classes, **loss)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    order = torch.Generator().manual_seed(options.seed)
    sampler = torch.utils.data.RandomSampler(data, num_samples=options.steps * options.batch, generator=order)
    for batch in DataLoader(data, options.batch, sampler=sampler):
        optimizer.zero_grad()
        criterion(model(batch["image"], return_aux=True), batch["label"]).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def measure(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, object]:
    """By stage, from shallow to deep; Dice over all held-back pixels; means over all classes but background."""
    inside = look_inside(model, images)
    overlap = gate_overlap(inside, labels)
    n = overlap.shape[1]
    p, t = (torch.nn.functional.one_hot(x.long(), n) for x in (inside.logits.argmax(1), labels))
    dice = 2 * (p * t).sum((0, 1, 2)) / (p + t).sum((0, 1, 2))
    whens = {"before": inside.before, "after": inside.after}
    return {
        "dice": dice[1:].nanmean().item(),
        "strides": inside.strides,
        "kinds": inside.kinds,
        "gate_overlap": overlap[:, 1:].nanmean(1).tolist(),
        "gate_overlap_by_class": overlap.tolist(),
        "gate_mean": [gate.mean().item() for gate in inside.gates],
        **{
            metric: {when: embedding_distances(e, metric).tolist() for when, e in whens.items()}
            for metric in ("euclidean", "cosine")
        },
    }


def markdown(results: dict[str, dict]) -> str:
    """The table of docs/inside.md, the deepest stage first."""
    lines = [
        "| network | Dice | stride | | gate overlap | distance, before → after | 1 − cosine, before → after |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, r in results.items():
        first = [name, f"{r['dice']:.3f}"]
        for i in reversed(range(len(r["strides"]))):
            (e, c) = ([r[metric][when][i] for when in ("before", "after")] for metric in ("euclidean", "cosine"))
            cells = [*first, str(r["strides"][i]), r["kinds"][i], f"{r['gate_overlap'][i]:.2f}"]
            cells += [f"{e[0]:.2f} → {e[1]:.2f}", f"{c[0]:.2f} → {c[1]:.2f}"]
            lines.append(f"| {' | '.join(cells)} |")
            first = ["", ""]
    return "\n".join(lines)


def few_colours(file: Path) -> None:
    """A picture of half the size on disk."""
    with writing(file) as temporary, Image.open(file) as picture:
        picture.convert("RGB").quantize(256).save(temporary, optimize=True)


def main() -> None:
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--picture", type=Path, help="draw the first held-back slice into this file")
    options = parser.parse_args()
    data, held_back = samples("train", options.size), samples("test", options.size)
    batch = next(iter(DataLoader(held_back, len(held_back))))
    results = {}
    for name, loss in RUNS.items():
        model = train(loss, data, options)
        results[name] = measure(model, batch["image"], batch["label"])
    print(markdown(results))
    common.record(options, results)
    if options.picture is not None:
        title = f"A generated slice after {options.steps} steps, {name}"
        picture = explain(
            model, batch["image"][0], classes=data.cases.classes, truth=batch["label"][0], title=title
        )
        save(picture, options.picture)
        few_colours(options.picture)


if __name__ == "__main__":
    main()

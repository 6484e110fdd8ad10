"""Train a small CFII network and the same codec without CFII side by side, and look at both.

    python examples/quickstart.py                    # a generated phantom of abdominal slices
    python examples/quickstart.py --data DIR         # your own images and masks

DIR holds img/ and labelcol/, or images and masks side by side (001.bmp + 001.png, a.png + a_mask.png). Every
fifth pair is held back for the Dice and the picture. Both networks see the same batches, the same number of
steps and the same optimiser.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Patch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch.utils.data import DataLoader

from cfii import CFIILoss, create_model
from cfii.training.cases import Subset
from cfii.training.files import DataError
from cfii.training.resize import Resize
from cfii.training.samples import Samples
from cfii.training.sets import open_set

WIDTHS = (32, 64, 128, 128)  # of the encoder's stages, at strides 1, 2, 4, 8
console = Console()


def say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


def load(options: argparse.Namespace) -> tuple[Samples, Samples, list[str]]:
    """Training set, held-back set, class names."""
    if options.data is None:
        train, held_back = (open_set("phantom", None, split, size=options.size) for split in ("train", "test"))
    else:
        pairs = open_set("folder", options.data)
        if len(pairs) < 5 or pairs.multilabel:
            raise DataError(
                f"{options.data}: expected at least 5 pairs, to hold back one, with one mask each, found "
                f"{len(pairs)}"
            )
        say(f"{len(pairs)} pairs in {options.data}; labels: {', '.join(pairs.classes)}")
        indices = range(len(pairs))
        train = Subset(pairs, [i for i in indices if i % 5 != 4])
        held_back = Subset(pairs, [i for i in indices if i % 5 == 4])
    resize = Resize(options.size)
    return Samples(train, resize), Samples(held_back, resize), list(train.classes)


def stack(samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
    """All images and all labels of a set."""
    batch = next(iter(DataLoader(samples, batch_size=len(samples))))
    return batch["image"], batch["label"]


def fit(models: dict[str, torch.nn.Module], data: Samples, num_classes: int, options: argparse.Namespace) -> None:
    """The same batches for every model, one optimiser each."""
    # Without L_EU, as its source (Li et al. 2022) switches it on after 20 epochs only; this run is shorter.
    criterion = CFIILoss(num_classes, lambda_eu=0)
    optimizers = {name: torch.optim.Adam(model.parameters(), lr=2e-3) for name, model in models.items()}
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(o, options.steps) for o in optimizers.values()]
    order = torch.Generator().manual_seed(options.seed)
    sampler = torch.utils.data.RandomSampler(
        data, replacement=False, num_samples=options.steps * options.batch, generator=order
    )
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    with bar:
        task = bar.add_task("training", total=options.steps)
        for batch in DataLoader(data, batch_size=options.batch, sampler=sampler):
            images, labels, losses = batch["image"], batch["label"], []
            for name, model in models.items():
                optimizers[name].zero_grad()
                loss = criterion(model.train()(images, return_aux=True), labels)
                loss.backward()
                optimizers[name].step()
                losses.append(f"{name} {loss.item():.2f}")
            for schedule in schedules:
                schedule.step()
            bar.update(task, advance=1, description="Dice + CE: " + ", ".join(losses))


@torch.no_grad()
def predict(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    return torch.cat([model.eval()(batch).argmax(1) for batch in images.split(8)])


def dice_per_class(prediction: torch.Tensor, labels: torch.Tensor, num_classes: int) -> list[float]:
    """Over all held-back pixels; NaN for a class in neither."""
    scores = []
    for label in range(num_classes):
        p, t = prediction == label, labels == label
        scores.append((2 * (p & t).sum() / (p.sum() + t.sum())).item())
    return scores


def report(predictions: dict[str, torch.Tensor], labels: torch.Tensor, names: list[str]) -> None:
    scores = {model: dice_per_class(prediction, labels, len(names)) for model, prediction in predictions.items()}
    table = Table("class", *(f"Dice, {model}" for model in scores), title=f"{len(labels)} held-back images")
    for label, name in enumerate(names):
        table.add_row(name, *(f"{values[label]:.3f}" for values in scores.values()))
    means = [torch.tensor(values[1:]).nanmean().item() for values in scores.values()]
    table.add_section()
    table.add_row(f"mean of classes 1 to {len(names) - 1}", *(f"{mean:.3f}" for mean in means), style="bold")
    console.print(table)


@torch.no_grad()
def picture(
    file: Path,
    cfii: torch.nn.Module,
    images: torch.Tensor,
    truth: torch.Tensor,
    predictions: dict,
    names: list[str],
) -> None:
    """Images, truth, predictions, and the gates of the largest class at the shallowest and a deeper stage."""
    rows = torch.linspace(0, len(images) - 1, min(4, len(images))).long()
    gates = [y.sigmoid() for y in cfii.eval()(images[rows], return_aux=True).class_logits]
    shown = (0, min(2, len(gates) - 1))
    colours = {
        "cmap": "tab10" if len(names) <= 10 else "nipy_spectral",
        "vmin": 0,
        "vmax": max(9, len(names) - 1),
    }
    titles = ["image", "truth", *predictions]
    figure, axes = plt.subplots(
        len(rows),
        len(titles) + len(shown),
        figsize=(2.3 * (len(titles) + len(shown)), 2.45 * len(rows)),
        squeeze=False,
    )
    for r, index in enumerate(rows):
        image = images[index].movedim(0, -1).clamp(0, 1)
        axes[r, 0].imshow(image, cmap="gray")
        for column, labels in enumerate((truth, *predictions.values()), start=1):
            axes[r, column].imshow(labels[index], interpolation="nearest", **colours)
        counts = truth[index].flatten().bincount(minlength=len(names))[1:]
        label = int(counts.argmax()) + 1  # the largest class but the background
        for column, stage in enumerate(shown, start=len(titles)):
            axes[r, column].imshow(gates[stage][r, label], cmap="viridis", vmin=0, vmax=1)
            stride = cfii.neck.iterator.strides[stage]
            axes[r, column].set_title(f"gate: {names[label]}\nstage {stage + 1}, stride {stride}", fontsize=8)
    axes[-1, -1].text(
        0.5, -0.08, "gates: dark 0, bright 1", ha="center", transform=axes[-1, -1].transAxes, fontsize=8
    )
    for axis, title in zip(axes[0], titles, strict=False):
        axis.set_title(title, fontsize=9)
    for axis in axes.flat:
        axis.set_axis_off()
    palette = plt.get_cmap(colours["cmap"])
    patches = [Patch(color=palette(label / colours["vmax"]), label=name) for label, name in enumerate(names)]
    figure.legend(handles=patches, loc="lower center", ncols=min(len(names), 9), fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.2 / len(rows), 1, 1))
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)
    say(f"picture: {file.resolve()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder of images and masks; without it, a phantom")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--size", type=int, default=64, help="images are resized to size x size")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("quickstart.png"), help="the picture")
    options = parser.parse_args()

    try:
        train, held_back, names = load(options)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    images, labels = stack(held_back)

    models = {}
    for name in ("plain", "CFII"):
        torch.manual_seed(options.seed)  # the same encoder in both
        models[name] = create_model("resunet", len(names), images.shape[1], cfii=name == "CFII", widths=WIDTHS)
        millions = sum(p.numel() for p in models[name].parameters()) / 1e6
        say(f"{name}: {millions:.2f} M parameters")
    fit(models, train, len(names), options)
    predictions = {name: predict(model, images) for name, model in models.items()}
    report(predictions, labels, names)
    picture(options.out, models["CFII"], images, labels, predictions, names)


if __name__ == "__main__":
    main()

"""Pictures of a data set and of predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from cfii.colours import palette, shorten, show_image, show_labels, show_outlines
from cfii.training.cases import Case
from cfii.training.files import writing
from cfii.training.metrics import METRICS
from cfii.training.results import Results

CELL = 2.2  # inches
LEGEND_ENTRIES = 24  # more do not fit


def mosaic(cases: Sequence[Case], classes: Sequence[str], file: str | Path, *, multilabel: bool = False) -> None:
    """Cases side by side, each with its labels beside it; of a volume, the slice with most of them."""
    cases = [busiest_slice(case) for case in cases]
    columns = min(len(cases), 4)
    rows = -(-len(cases) // columns)
    figure, axes = grid(rows, 2 * columns)
    for cell, case in zip(axes.reshape(-1, 2), cases, strict=False):
        show_image(cell[0], case.image)
        cell[0].set_title(shorten(case.name), fontsize=7)
        show_image(cell[1], case.image)
        if case.label is not None:
            show_labels(cell[1], case.label, classes, multilabel)
    finish(figure, classes, file, multilabel)


def overlays(
    results: Results,
    case_of: Callable[[str], Case],
    predict: Callable[[Case], np.ndarray],
    classes: Sequence[str],
    file: str | Path,
) -> None:
    """The worst, the median and the best case by mean Dice: image, truth, prediction.

    Args:
        case_of: from a case's name to the case.
        predict: from a case to its labels.
        classes: all, with the background.
    """
    means = results.case_means()
    picked = results.worst_median_best()
    figure, axes = grid(len(picked), 3)
    for row, (name, place) in zip(axes, picked.items(), strict=True):
        case = case_of(name)
        prediction = predict(case)
        plane = busiest(case)
        if plane is not None:
            case, prediction = case.plane(plane), prediction[..., plane, :, :]
        for axis in row:
            show_image(axis, case.image)
        show_labels(row[1], case.label, classes, results.multilabel)
        show_labels(row[2], prediction, classes, results.multilabel)
        show_outlines(row[2], case.label, classes, results.multilabel)
        row[0].set_title(f"{place}: {shorten(name)}", fontsize=8)
        row[1].set_title("truth", fontsize=8)
        row[2].set_title(f"prediction, truth outlined, Dice {means[name]:.3f}", fontsize=8)
    finish(figure, classes, file, results.multilabel)


def bars(results: Results, file: str | Path) -> None:
    """Each metric per class: mean and bootstrap 95 % interval, over each case as a dot."""
    table, scores = results.summary(), results.array()
    names = list(table)
    figure = Figure(figsize=(1.6 + 3.2 * len(METRICS), 1.2 + 0.36 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(METRICS), sharey=True)
    place = np.arange(len(names))[::-1]
    for m, (axis, metric) in enumerate(zip(axes, METRICS, strict=True)):
        cells = [table[name][metric] for name in names]
        means, low, high = (np.array([cell[key] for cell in cells]) for key in ("mean", "low", "high"))
        axis.barh(place, means, color=[*["#4c78a8"] * (len(names) - 1), "#9d755d"], alpha=0.7, height=0.7)
        spread = np.nan_to_num(np.maximum([means - low, high - means], 0))
        axis.errorbar(means, place, xerr=spread, fmt="none", ecolor="black", elinewidth=1, capsize=2)
        for c in range(scores.shape[1]):
            axis.plot(
                scores[:, c, m], np.full(len(scores), place[c]), ".", color="black", alpha=0.35, markersize=3
            )
        axis.set_xlabel(f"HD95 ({results.unit})" if metric == "hd95" else {"dice": "Dice", "iou": "IoU"}[metric])
        axis.set_xlim(0, None if metric == "hd95" else 1)
    axes[0].set_yticks(place, names)
    figure.suptitle(f"{len(results.scores)} cases, protocol '{results.protocol}'", fontsize=9)
    save(figure, file)


def save(figure: Figure, file: str | Path) -> None:
    with writing(file) as temporary:
        figure.savefig(temporary, dpi=110)


def grid(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(CELL * columns, CELL * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def finish(figure: Figure, classes: Sequence[str], file: str | Path, multilabel: bool) -> None:
    colours = palette(len(classes), multilabel)
    shown = range(0 if multilabel else 1, len(classes))
    patches = [Patch(color=colours(i), label=shorten(classes[i], 24)) for i in shown][:LEGEND_ENTRIES]
    figure.legend(
        handles=patches, loc="outside lower center", ncols=min(len(patches), 6), fontsize=7, frameon=False
    )
    save(figure, file)


def busiest(case: Case) -> int | None:
    """The slice of a volume with most labels; None for an image."""
    if len(case.shape) == 2:
        return None
    if case.label is None:
        return case.shape[0] // 2
    others = tuple(axis for axis in range(case.label.ndim) if axis != case.label.ndim - 3)
    return int((case.label > 0).sum(others).argmax())


def busiest_slice(case: Case) -> Case:
    plane = busiest(case)
    return case if plane is None else case.plane(plane)


def curves(history: Mapping[str, Sequence[tuple[float, float]]], file: str | Path) -> None:
    """Training curves: one panel for each quantity, `train_x` and `val_x` in one.

    Args:
        history: (epoch, value) of each logged quantity.
    """
    panels: dict[str, list[str]] = {}
    for name in history:
        panels.setdefault(name.removeprefix("train_").removeprefix("val_"), []).append(name)
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4 * columns, 2.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (title, names) in zip(axes.flat, panels.items(), strict=False):
        for name in names:
            epochs, values = zip(*history[name], strict=True)
            axis.plot(epochs, values, marker="." if len(epochs) < 20 else None, label=name)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("epoch", fontsize=8)
        axis.legend(fontsize=7, frameon=False)
    save(figure, file)

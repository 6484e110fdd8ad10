"""`cfii check`: every file of a data set is read before anything is trained on it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cfii.training.data import SegmentationData
from cfii.training.pictures import mosaic
from cfii.training.survey import Survey, survey

ERRORS_SHOWN = 20


def check(data: SegmentationData, picture: Path | None = None, console: Console | None = None) -> bool:
    """Read and check all cases of all splits, print a summary, and draw a mosaic of each split.

    Args:
        picture: of the first split; the others' names end in `_val` and `_test`. None: no pictures.

    Returns:
        Whether nothing is wrong.
    """
    console = console or Console()
    surveys: dict[str, Survey] = {}
    for split, cases in data.splits().items():
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(f"{data.name} {split}", total=len(cases))
            surveys[split] = survey(cases, lambda bar=bar, task=task: bar.advance(task))
        console.print(summarise(data.name, split, surveys[split]))
        if picture is not None and surveys[split].examples:
            first = split == next(iter(surveys))
            file = picture if first else picture.with_stem(f"{picture.stem}_{split}")
            mosaic(surveys[split].examples, cases.classes, file, multilabel=cases.multilabel)
            say(console, f"picture: {file}")
    for note in notes(surveys):
        say(console, f"note: {note}")
    errors = [error for found in surveys.values() for error in found.errors]
    for error in errors[:ERRORS_SHOWN]:
        say(console, f"error: {error}")
    if len(errors) > ERRORS_SHOWN:
        say(console, f"error: … and {len(errors) - ERRORS_SHOWN} more")
    say(console, f"{len(errors)} files cannot be used" if errors else "every file can be used")
    return not errors


def say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def summarise(name: str, split: str, found: Survey) -> Table:
    table = Table(
        "class",
        "pixels %",
        "in cases",
        title=f"{name}, {split}: {found.cases} cases"
        + (f" of {len(found.patients)} patients" if found.patients else ""),
        caption=f"size {found.size_text()}; spacing {found.spacing_text()}; values "
        f"{found.values[0]:.3g} to {found.values[1]:.3g}",
        caption_justify="left",
    )
    for label, pixels, present in zip(found.classes, found.pixels, found.present, strict=True):
        share = f"{100 * pixels / found.total_pixels:.2f}" if found.total_pixels else "–"
        table.add_row(label, share, str(present))
    return table


def notes(surveys: dict[str, Survey]) -> list[str]:
    """What is not wrong, but worth knowing."""
    found = []
    for split, one in surveys.items():
        if one.total_pixels and one.absent:
            found.append(f"{split} shows no {', '.join(one.absent)}")
        if not one.total_pixels and one.cases:
            found.append(f"{split} has no labels")
        repeated = sum(found_planes - 1 for found_planes in one.planes.values())
        if repeated:
            found.append(f"{split} holds {repeated} images or slices twice")
    splits = list(surveys)
    for i, a in enumerate(splits):
        for b in splits[i + 1 :]:
            same = len(surveys[a].planes.keys() & surveys[b].planes.keys())
            if same:
                found.append(f"{a} and {b} share {same} images or slices: scores on {b} would say little")
            patients = sorted(surveys[a].patients & surveys[b].patients)
            if patients:
                listed = ", ".join(patients[:5]) + (" …" if len(patients) > 5 else "")
                found.append(f"{a} and {b} share {len(patients)} patients: {listed}")
    return found

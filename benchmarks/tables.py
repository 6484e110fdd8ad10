"""Tables and plots of what accuracy.py has recorded, the paper's figures beside ours."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from cfii.training.files import writing

Record = dict[str, Any]
Group = tuple[str, str, str]  # set (and what differs from its recipe), codec, arm

# Dice in percent as the paper reports it. Table 4's tick marks are lost; its text says what FEU and CEU add.
PAPER: dict[str, dict[tuple[str, str], float]] = {
    "synapse": {
        **{("resunet", arm): dice for arm, dice in {"cfii": 84.58, "learned": 81.57}.items()},  # Table 4
        **{("resunet", "no-feu"): 82.61, ("resunet", "no-ceu"): 82.68},  # Table 4
        **{("resunet", "lambda-0"): 84.36, ("resunet", "lambda-0.3"): 84.58, ("resunet", "lambda-1"): 84.38},  # 6
        **{("unet", "plain"): 76.85, ("unet", "cfii"): 81.84},  # Table 5
        **{("transunet", "plain"): 77.48, ("transunet", "cfii"): 81.12},
        **{("swinunet", "plain"): 79.12, ("swinunet", "cfii"): 80.31},
    },
    "acdc": {  # Table 2
        **{("resunet", "cfii"): 92.37, ("unet", "plain"): 87.55},
        **{("transunet", "plain"): 89.71, ("swinunet", "plain"): 88.07},
    },
    "glas": {  # Table 3
        **{("resunet", "cfii"): 92.25, ("unet", "plain"): 86.76},
        **{("transunet", "plain"): 88.93, ("swinunet", "plain"): 89.67},
    },
    "monuseg": {  # Table 3
        **{("resunet", "cfii"): 81.33, ("unet", "plain"): 73.97},
        **{("transunet", "plain"): 79.20, ("swinunet", "plain"): 78.49},
    },
}
# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = ("#000000", "#56b4e9", "#d55e00", "#e69f00", "#009e73", "#0072b2", "#cc79a7", "#999933")
MARKS = "os^Dv*"


def load(folder: Path) -> list[Record]:
    """The records of all finished runs."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*-seed*.json"))]


def conditions(record: Record) -> str:
    """The set, with the arguments by which all its arms differ from the recipe."""
    return " ".join([record["set"], *record["extra"]])


def grouped(records: Iterable[Record]) -> dict[Group, dict[int, Record]]:
    """By set, codec and arm, then by seed."""
    groups: dict[Group, dict[int, Record]] = defaultdict(dict)
    for record in records:
        groups[conditions(record), record["codec"], record["arm"]][record["seed"]] = record
    return dict(groups)


def dice(record: Record, name: str = "mean") -> float:
    """In percent, by the strict protocol."""
    value = record["scores"]["strict"][name]["dice"]
    return float("nan") if value is None else 100 * value


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """The mean and half the width of its 95 % interval, by Student's t over the seeds; infinite for one seed."""
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return float(values.mean()), float("inf")
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean()), float(half)


def against_plain(groups: dict[Group, dict[int, Record]], group: Group) -> dict[int, float]:
    """Difference to the plain codec, seed by seed, over the seeds that both have."""
    plain = groups.get((*group[:2], "plain"), {})
    return {seed: dice(record) - dice(plain[seed]) for seed, record in groups[group].items() if seed in plain}


def show_difference(differences: Sequence[float]) -> str:
    if not differences:
        return "–"
    middle, half = interval(differences)
    ends = "" if half == float("inf") else f" [{middle - half:+.2f}, {middle + half:+.2f}]"
    return f"{middle:+.2f}{ends}"


def show_alike(runs: Sequence[Record]) -> str:
    """What the Dice changes by, when a network sees all its classes' embeddings alike; the mean over the runs."""
    changes = [100 * run["classes_alike"] - dice(run) for run in runs if "classes_alike" in run]
    return f"{np.mean(changes):+.2f}" if changes else "–"


def in_order(names: Iterable[str], order: Sequence[str]) -> list[str]:
    known = {name: place for place, name in enumerate(order)}
    return sorted(set(names), key=lambda name: (known.get(name, len(known)), name))


def markdown(records: Sequence[Record], arms: Sequence[str]) -> str:
    """A table for each set, then the differences over all sets."""
    groups = grouped(records)
    parts = [of_set(groups, name, arms) for name in sorted({group[0] for group in groups})]
    # By the options that depart from the recipes, whatever their values.
    alike: dict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
    for record in records:
        alike[tuple(option.partition("=")[0] for option in record["extra"])][conditions(record)] = None
    for options, names in sorted(alike.items()):
        if len(names) > 1:
            parts.append(over_sets({g: groups[g] for g in groups if g[0] in names}, options, arms))
    return "\n\n".join(parts)


def title(name: str, options: Sequence[str]) -> str:
    """Of a table, with what departs from the recipe."""
    return " ".join([f"**{name}**", *(f"`{option}`" for option in options)])


def of_set(groups: dict[Group, dict[int, Record]], name: str, arms: Sequence[str]) -> str:
    mine = {group: seeds for group, seeds in groups.items() if group[0] == name}
    first = next(iter(next(iter(mine.values())).values()))
    cases, (height, width) = first["cases"], first["size"]
    classes = [c for c in first["scores"]["strict"] if c != "mean"]
    several = classes if len(classes) > 1 else []
    paper = PAPER.get(first["set"], {})
    alike = ["alike"] if any("classes_alike" in run for seeds in mine.values() for run in seeds.values()) else []
    heads = ["codec", "arm", "M", "seeds", *several, "Dice", "against plain", *alike]
    heads += [*(["paper"] if paper else []), "s"]
    lines = [
        f"{title(first['set'], first['extra'])}: {cases['train']} cases for training, {cases['val']} for "
        f"validation, {cases['test']} for the score; {height} × {width}, {first['epochs']} epochs.",
        "",
        f"| {' | '.join(heads)} |",
        f"|{' --- |' * len(heads)}",
    ]
    told = set()
    for codec in sorted({group[1] for group in mine}):
        for arm in in_order((group[2] for group in mine if group[1] == codec), arms):
            seeds = mine[name, codec, arm]
            runs = list(seeds.values())
            scores = np.array([dice(run) for run in runs])
            spread = f" ± {scores.std(ddof=1):.2f}" if len(scores) > 1 else ""
            difference = [] if arm == "plain" else list(against_plain(groups, (name, codec, arm)).values())
            key = (codec.partition(":")[0], arm)
            told.add(key)
            cells = [
                codec,
                arm,
                f"{runs[0]['parameters_M']:.2f}",
                str(len(runs)),
                *(f"{np.mean([dice(run, c) for run in runs]):.2f}" for c in several),
                f"{scores.mean():.2f}{spread}",
                show_difference(difference),
                *(show_alike(runs) for _ in alike),
                *([f"{paper[key]:.2f}" if key in paper else "–"] if paper else []),
                f"{np.mean([run['seconds'] for run in runs]):.0f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    for (codec, arm), value in paper.items():
        if (codec, arm) not in told:
            cells = [codec, arm, *["–"] * (len(heads) - 4), f"{value:.2f}", "–"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def over_sets(groups: dict[Group, dict[int, Record]], options: Sequence[str], arms: Sequence[str]) -> str:
    """Each arm's difference to the plain codec, averaged over the sets that it was run on."""
    lines = [
        f"{title('All sets', options)}: difference to the plain codec, averaged over the sets seed by seed.",
        "",
        "| codec | arm | sets | seeds | against plain |",
        "| --- | --- | --- | --- | --- |",
    ]
    for codec in sorted({group[1].partition(":")[0] for group in groups}):
        mine = [group for group in groups if group[1].partition(":")[0] == codec and group[2] != "plain"]
        for arm in in_order((group[2] for group in mine), arms):
            found = [against_plain(groups, group) for group in mine if group[2] == arm]
            found = [differences for differences in found if differences]
            shared = sorted(set.intersection(*map(set, found))) if found else []
            if len(found) < 2 or not shared:
                continue
            means = [float(np.mean([differences[seed] for differences in found])) for seed in shared]
            cells = [codec, arm, str(len(found)), str(len(shared)), show_difference(means)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def panels(groups: dict[Group, Any], height: float) -> tuple[Figure, dict[str, Any], list[str]]:
    """A figure with a panel for each set, and the arms in the order of their colours."""
    sets = sorted({group[0] for group in groups})
    columns = min(len(sets), 2)
    rows = -(-len(sets) // columns)
    figure = Figure(figsize=(1 + 4.2 * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis in axes[len(sets) :]:
        axis.remove()
    axes = axes[: len(sets)]
    for axis, name in zip(axes, sets, strict=True):
        axis.set_title(name.replace(" ", "\n"), fontsize=10)
        axis.grid(alpha=0.3)
    return figure, dict(zip(sets, axes, strict=True)), list(dict.fromkeys(group[2] for group in groups))


def save(figure: Figure, file: Path) -> None:
    with writing(file) as temporary:
        figure.savefig(temporary, bbox_inches="tight", metadata={"Date": None} if file.suffix == ".svg" else None)


def scatter(records: Sequence[Record], file: Path) -> None:
    """Parameters against Dice, as in the paper's figure 1: a mark for the mean, a bar over the seeds' range."""
    groups = grouped(records)
    figure, axes, arms = panels(groups, 4.2)
    codecs = sorted({group[1] for group in groups})
    for (name, codec, arm), seeds in groups.items():
        scores = [dice(run) for run in seeds.values()]
        x, colour = next(iter(seeds.values()))["parameters_M"], COLOURS[arms.index(arm) % len(COLOURS)]
        axes[name].plot([x, x], [min(scores), max(scores)], color=colour, linewidth=1)
        mark = MARKS[codecs.index(codec) % len(MARKS)]
        axes[name].plot(x, np.mean(scores), mark, color=colour, label=f"{codec.partition(':')[0]}, {arm}")
    for axis in axes.values():
        axis.set_xlabel("parameters, M")
        axis.set_ylabel("Dice, %")
    legend(figure, axes)
    save(figure, file)


def curves(records: Sequence[Record], file: Path) -> None:
    """Validation Dice by epoch, the mean over the seeds."""
    groups = grouped(records)
    figure, axes, arms = panels(groups, 4.2)
    codecs = sorted({group[1] for group in groups})
    for (name, codec, arm), seeds in groups.items():
        histories = [dict(run["history"].get("val_dice", [])) for run in seeds.values()]
        epochs = sorted(set.intersection(*map(set, histories)))
        means = [100 * np.mean([history[epoch] for history in histories]) for epoch in epochs]
        axes[name].plot(
            [epoch + 1 for epoch in epochs],
            means,
            color=COLOURS[arms.index(arm) % len(COLOURS)],
            linestyle=("-", "--", ":", "-.")[codecs.index(codec) % 4],
            linewidth=1.2,
            label=f"{codec.partition(':')[0]}, {arm}",
        )
    for axis in axes.values():
        axis.set_xlabel("epoch")
        axis.set_ylabel("validation Dice, %")
    legend(figure, axes)
    save(figure, file)


def legend(figure: Figure, axes: dict[str, Any]) -> None:
    entries: dict[str, Any] = {}
    for axis in axes.values():
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(entries.values(), entries, loc="outside lower center", ncols=3, fontsize=8, frameon=False)

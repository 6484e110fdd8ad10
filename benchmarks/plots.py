"""Plots of what backbones.py, peers.py and neck.py have recorded.

    python benchmarks/plots.py [RESULTS.json ...] [--to FOLDER] [--format svg]

Without files all of benchmarks/results/*.json, and the plots go beside them: NAME-networks (images/s of every
network with its quartiles, and the peak memory of its training step), NAME-growth (time against classes, pixels
and width), NAME-operators (where the neck's time goes). A plot is drawn where a file has what it shows.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import compare
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cfii.training.files import writing

# Okabe and Ito's colours, which the colour-blind can tell apart; marks differ as well.
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#e69f00", "#009e73", "#cc79a7"
MARKS = "os^Dv"


def groups(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return list(dict.fromkeys((row["precision"], row["batch"]) for row in rows))


def title(record: dict[str, Any], precision: str, batch: int) -> str:
    machine = record["machine"]
    return f"{machine['device']}, torch {machine['torch']}, {precision}, batch {batch}"


def networks(record: dict[str, Any], precision: str, batch: int) -> Figure:
    """Images/s of every network in its best mode, one panel a task, and the peak memory of a training step."""
    rows = record["results"]["rows"]
    names = list(record["results"]["networks"])
    panels = [(task, "images_per_s", f"{task}: images/s") for task in dict.fromkeys(row["task"] for row in rows)]
    if any("peak_MiB" in row for row in rows if row["task"] == "training"):
        panels.append(("training", "peak_MiB", "training: peak memory, MiB"))
    figure, axes = plt.subplots(
        *(1, len(panels)),
        figsize=(2 + 3.6 * len(panels), 1.6 + 0.32 * len(names)),
        **{"sharey": True, "squeeze": False, "layout": "constrained"},
    )
    for panel, (task, key, label) in zip(axes[0], panels, strict=True):
        for y, name in enumerate(names):
            row = compare.best(rows, network=name, task=task, precision=precision, batch=batch)
            if row is None or key not in row:
                panel.text(0, y, " not measured", va="center", fontsize=8)
                continue
            low, high = row.get(f"{key}_q1", row[key]), row.get(f"{key}_q3", row[key])
            panel.barh(y, row[key], color=ORANGE if "CFII" in name else BLUE, edgecolor="black", linewidth=0.4)
            panel.plot([low, high], [y, y], color="black")
            panel.annotate(
                f"{row[key]:.0f}" if row[key] >= 100 else f"{row[key]:.3g}",
                (max(high, row[key]), y),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        panel.set_xlabel(label)
        panel.margins(x=0.18)
        panel.set_xlim(left=0)
    axes[0, 0].set_yticks(range(len(names)), names, fontsize=8)
    axes[0, 0].set_ylim(len(names) - 0.4, -0.6)
    figure.suptitle(f"{title(record, precision, batch)}; median and quartiles; orange: with CFII", fontsize=10)
    return figure


def series(axes: Axes, rows: list[dict[str, Any]], label: str, number: int, x: str) -> None:
    """Time of the best mode against the number in each network's name."""
    points = {}
    for name in dict.fromkeys(row["network"] for row in rows):
        row = compare.best(rows, network=name)
        if row is not None:
            points[number_in(name)] = row
    xs = sorted(points)
    values, lows, highs = ([points[v][f"latency_{q}_ms"] for v in xs] for q in ("median", "q1", "q3"))
    color = (BLUE, ORANGE, GREEN, PURPLE)[number % 4]
    axes.plot(xs, values, MARKS[number % len(MARKS)] + "-", color=color, label=label)
    axes.fill_between(xs, lows, highs, color=color, alpha=0.2)
    axes.set(xlabel=x, ylabel="training step without loss, ms")


def number_in(name: str) -> float:
    """The first number of a name such as "N = 9", "224², SIT from stride 4" or "widths x 0.5, plain"."""
    for word in name.replace("²", " ").replace(",", " ").split():
        try:
            return float(word)
        except ValueError:
            continue
    raise ValueError(f"name: expected one with a number, got {name!r}")


def growth(record: dict[str, Any], precision: str) -> Figure | None:
    results = {k: [r for r in v if r["precision"] == precision] for k, v in record["results"].items()}
    drawn = [k for k in ("classes", "resolution", "width") if results.get(k)]
    if not drawn:
        return None
    figure, panels = plt.subplots(1, len(drawn), figsize=(4.6 * len(drawn), 3.8), layout="constrained")
    for panel, section in zip([panels] if len(drawn) == 1 else panels, drawn, strict=True):
        rows = results[section]
        kinds = {"classes": "", "resolution": ",", "width": ","}[section]
        labels = dict.fromkeys(row["network"].partition(kinds)[2].strip() if kinds else "" for row in rows)
        x = {"classes": "classes N", "resolution": "image side, pixels", "width": "width, of the default"}[
            section
        ]
        for i, label in enumerate(labels):
            own = [r for r in rows if not kinds or r["network"].partition(kinds)[2].strip() == label]
            series(panel, own, label or "CFII-ResUNet", i, x)
        panel.set_title(f"{section}, batch {rows[0]['batch']}", fontsize=10)
        if section == "resolution":
            panel.set(xscale="log", yscale="log")
            sides = sorted({row["shape"][-1] for row in rows})
            panel.set_xticks(sides, map(str, sides))
            panel.minorticks_off()
        else:
            panel.set_ylim(bottom=0)
        panel.legend(fontsize=8)
        panel.grid(alpha=0.25)
    machine = record["machine"]
    figure.suptitle(f"CFII-ResUNet, {machine['device']}, torch {machine['torch']}, {precision}", fontsize=10)
    return figure


def operator_bars(record: dict[str, Any], row: dict[str, Any], first: int = 12) -> Figure:
    """Each operator's time beside its roofline, and what a step takes beside its operators."""
    rows = row["operators"][:first]
    figure, axes = plt.subplots(figsize=(9, 1.4 + 0.36 * (len(rows) + 1)), layout="constrained")
    rest = row["operators"][first:]
    rows = [*rows, {"operator": "others", **{k: sum(r[k] for r in rest) for k in ("ms", "bound_ms")}}]
    for y, r in enumerate(rows):
        axes.barh(y - 0.2, r["ms"], 0.38, color=BLUE, label="measured" if y == 0 else None)
        axes.barh(
            y + 0.2,
            r["bound_ms"],
            0.38,
            color=ORANGE,
            label="least at this machine's ceilings" if y == 0 else None,
        )
    names = [r["operator"].removeprefix("aten::").removeprefix("_") for r in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("ms a step")
    axes.legend(fontsize=8)
    whole = 1e3 * row["batch"] / row["images_per_s"]
    where = title(record, row["precision"], row["batch"])
    figure.suptitle(
        f"neck, {row['task']}, {row['mode']}: {whole:.1f} ms, roofline {row['roofline_ms']:.1f} ms\n{where}",
        fontsize=10,
    )
    return figure


def figures(record: dict[str, Any]) -> dict[str, Figure]:
    """Every plot that the record has the rows for, by the end of its name."""
    results, found = record["results"], {}
    if "rows" in results and "networks" in results:
        for precision, batch in groups(results["rows"]):
            ending = "" if len(groups(results["rows"])) == 1 else f"-{precision}-batch{batch}"
            found[f"networks{ending}"] = networks(record, precision, batch)
    elif {"classes", "resolution", "width", "ceiling"} & set(results):
        for precision in dict.fromkeys(row["precision"] for rows in results.values() for row in rows):
            found[f"growth-{precision}"] = growth(record, precision)
        for row in results.get("ceiling", []):
            if "operators" in row:
                found[f"operators-{row['task']}-{row['precision']}-batch{row['batch']}-{row['mode']}"] = (
                    operator_bars(record, row)
                )
    return {name: figure for name, figure in found.items() if figure is not None}


def main() -> None:
    here = Path(__file__).parent / "results"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="*", metavar="RESULTS.json")
    parser.add_argument("--to", type=Path, default=here, help="the folder of the plots")
    parser.add_argument("--format", default="svg", choices=["svg", "png"])
    options = parser.parse_args()
    plt.rcParams["svg.hashsalt"] = "cfii"  # the same record gives the same file
    for file in options.files or sorted(here.glob("*.json")):
        for name, figure in figures(json.loads(file.read_text())).items():
            path = options.to / f"{file.stem}-{name}.{options.format}"
            with writing(path) as temporary:
                figure.savefig(temporary, dpi=150)
            plt.close(figure)
            print(path)


if __name__ == "__main__":
    main()

"""A table of scores: per case and class, with means, standard deviations and bootstrap intervals."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cfii.training.cases import Case
from cfii.training.files import DataError, writing
from cfii.training.metrics import METRICS, Protocol, score

RESAMPLES = 2000


class Results:
    """Scores of one model on one set.

    Args:
        classes: their names, background first; multilabel data has no background.
        protocol: see `metrics.score`.
        multilabel: labels come as one mask a class.

    Examples:
        >>> results = Results(("background", "gland"), "strict")
        >>> results.add("1", prediction, truth)
        >>> results.save("scores")
    """

    def __init__(self, classes: Sequence[str], protocol: Protocol = "strict", multilabel: bool = False) -> None:
        self.scored = tuple(classes if multilabel else classes[1:])
        self.protocol, self.multilabel = protocol, multilabel
        self.scores: dict[str, list[tuple[float, float, float]]] = {}
        self.units: set[str] = set()

    def add(
        self,
        name: str,
        prediction: np.ndarray,
        truth: np.ndarray,
        spacing: Sequence[float] | None = None,
    ) -> None:
        """Score a case: labels of its shape, or (classes, …) masks if multilabel."""
        if name in self.scores:
            raise ValueError(f"name: expected every case once, got {name!r} again")
        masks = range(len(self.scored)) if self.multilabel else range(1, len(self.scored) + 1)
        pick = (lambda labels, i: labels[i]) if self.multilabel else (lambda labels, i: labels == i)
        self.scores[name] = [score(pick(prediction, i), pick(truth, i), self.protocol, spacing) for i in masks]
        self.units.add("mm" if spacing is not None and self.protocol == "strict" else "voxels")

    def add_case(self, case: Case, prediction: np.ndarray) -> None:
        """Score a prediction against a case's own labels."""
        if case.label is None:
            raise DataError(f"{case.file}: expected labels to score against, found none")
        self.add(case.name, prediction, case.label, case.spacing)

    @property
    def unit(self) -> str:
        """Of HD95: "voxels", or "mm" where every case has a spacing."""
        return " and ".join(sorted(self.units)) or "voxels"

    def array(self) -> np.ndarray:
        """(cases, classes, metrics)."""
        return np.array(list(self.scores.values()), dtype=float).reshape(-1, len(self.scored), len(METRICS))

    def case_means(self) -> dict[str, float]:
        """Each case's Dice, mean over its classes; NaN where no class is there."""
        return {name: mean(np.array(rows)[:, 0], 0).item() for name, rows in self.scores.items()}

    def worst_median_best(self) -> dict[str, str]:
        """Names of cases and what they are; of few cases one may be two of them, and is then named once."""
        means = {name: value for name, value in self.case_means().items() if np.isfinite(value)}
        if not means:
            raise ValueError("scores: expected at least one case with a Dice, got none")
        order = sorted(means, key=means.get)
        places = {order[-1]: "best", order[len(order) // 2]: "median", order[0]: "worst"}
        return dict(reversed(places.items()))

    def merge(self, parts: Sequence[Results], order: Sequence[str]) -> None:
        """Take in what several processes scored, each case once, in this order."""
        found = {name: rows for part in parts for name, rows in part.scores.items()}
        self.scores = {name: found[name] for name in order if name in found}
        self.units = {unit for part in parts for unit in part.units}

    def summary(self, seed: int = 0) -> dict[str, dict[str, dict[str, float]]]:
        """For each class and for "mean", for each metric: mean, std (over cases, n - 1), low and high (of a
        bootstrap 95 % interval of the mean over cases), and the number of cases that count.

        The mean of classes is the mean of the classes' means, its std that of the cases' means.
        """
        if not self.scores:
            raise ValueError("scores: expected at least one case, got none; call add first")
        scores = self.array()
        drawn = np.random.default_rng(seed).integers(len(scores), size=(RESAMPLES, len(scores)))
        resampled = np.stack([mean(scores[rows], 0) for rows in drawn])  # (resamples, classes, metrics)
        table = {}
        for c, name in enumerate((*self.scored, "mean")):
            overall = name == "mean" and c == len(self.scored)
            values = mean(scores, 1) if overall else scores[:, c]
            means = mean(mean(scores, 0), 0) if overall else mean(values, 0)
            again = mean(resampled, 1) if overall else resampled[:, c]
            table[name] = {
                metric: {
                    "mean": means[m].item(),
                    "std": deviation(values[:, m]),
                    "low": percentile(again[:, m], 2.5),
                    "high": percentile(again[:, m], 97.5),
                    "cases": int(np.isfinite(values[:, m]).sum()),
                }
                for m, metric in enumerate(METRICS)
            }
        return table

    def markdown(self) -> str:
        """The summary as a table; Dice and IoU in percent."""
        lines = [
            f"Protocol `{self.protocol}`, {len(self.scores)} cases; mean ± standard deviation over cases "
            "[bootstrap 95 % interval of the mean].",
            "",
            f"| class | Dice % | IoU % | HD95 ({self.unit}) | cases |",
            "| --- | --- | --- | --- | --- |",
        ]
        for name, row in self.summary().items():
            cells = [show(row[metric], 1 if metric == "hd95" else 100) for metric in METRICS]
            lines.append(f"| {name} | {' | '.join(cells)} | {row['dice']['cases']} |")
        return "\n".join(lines) + "\n"

    def to_dict(self) -> dict[str, Any]:
        return {
            "protocol": self.protocol,
            "hd95_unit": self.unit,
            "classes": list(self.scored),
            "summary": self.summary(),
            "cases": {
                name: {c: dict(zip(METRICS, row, strict=True)) for c, row in zip(self.scored, rows, strict=True)}
                for name, rows in self.scores.items()
            },
        }

    def save(self, folder: str | Path) -> None:
        """Write `scores.csv` (a line for each case and class), `summary.csv` (a line for each class and metric),
        `scores.json` (both) and `scores.md` (the summary)."""
        folder = Path(folder)
        rows = [(n, c, *row) for n, rows in self.scores.items() for c, row in zip(self.scored, rows, strict=True)]
        write_csv(folder / "scores.csv", ["case", "class", *METRICS], rows)
        cells = [(c, m, cell) for c, metrics in self.summary().items() for m, cell in metrics.items()]
        header = ["class", "metric", *cells[0][2]]
        write_csv(folder / "summary.csv", header, [(c, m, *cell.values()) for c, m, cell in cells])
        with writing(folder / "scores.json") as file:
            file.write_text(json.dumps(without_nan(self.to_dict()), indent=1) + "\n", encoding="utf-8")
        with writing(folder / "scores.md") as file:
            file.write_text(self.markdown(), encoding="utf-8")


def write_csv(file: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with writing(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as opened:
        table = csv.writer(opened)
        table.writerow(header)
        table.writerows(rows)


def mean(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean of what is not NaN; NaN where nothing is."""
    valid = np.isfinite(values)
    count = valid.sum(axis)
    total = np.where(valid, values, 0).sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def deviation(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0 if len(values) else float("nan")


def percentile(values: np.ndarray, q: float) -> float:
    values = values[np.isfinite(values)]
    return float(np.percentile(values, q)) if len(values) else float("nan")


def show(cell: dict[str, float], factor: float) -> str:
    if not cell["cases"]:
        return "–"
    m, std, low, high = (factor * cell[key] for key in ("mean", "std", "low", "high"))
    return f"{m:.2f} ± {std:.2f} [{low:.2f}, {high:.2f}]"


def without_nan(value: Any) -> Any:
    """JSON has no NaN: null instead."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value

"""Tables of benchmarks/results: `<!-- results: NAME -->` in a page becomes what `TABLES[NAME]` returns."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from mkdocs.exceptions import PluginError

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
Record = dict[str, Any]


def on_page_markdown(markdown: str, **_: Any) -> str:
    return re.sub(r"<!-- results: (\w+) -->", lambda found: render(found[1]), markdown)


def render(name: str) -> str:
    if name not in TABLES:
        raise PluginError(f"results: expected one of {', '.join(TABLES)}, got {name}")
    return TABLES[name]()


def records(pattern: str) -> Iterator[Record]:
    """What a benchmark has recorded: one file for each machine or run."""
    for file in sorted(RESULTS.glob(pattern)):
        yield json.loads(file.read_text(encoding="utf-8"))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown; the first column is text, the others numbers."""
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def about(record: Record, more: str = "") -> str:
    """Where, when and how it was measured."""
    machine = record["machine"]
    where = f"{machine['device']}, {machine['threads']} CPU threads, torch {machine['torch']}"
    return f"*{where}{more}; {machine['date']}.* `{machine['command']}`"


def times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f} ×"


def best(rows: list[Record], **where: Any) -> Record | None:
    """The row of the fastest mode among those that agree with `where`."""
    fitting = [row for row in rows if "error" not in row and all(row[k] == v for k, v in where.items())]
    return max(fitting, key=lambda row: row["images_per_s"], default=None)


def speed(record: Record, network: str, **where: Any) -> str:
    """A network's images/s, in its fastest mode."""
    measured = best(record["results"]["rows"], network=network, **where)
    return f"{measured['images_per_s']:.2f}" if measured else "not measured"


def ratio(record: Record, network: str, **where: Any) -> Record:
    """A network's ratios to its baseline."""
    for row in record["results"]["ratios"]:
        if row["network"] == network and all(row[k] == v for k, v in where.items()):
            return row
    return {}


def groups(record: Record) -> Iterator[tuple[dict[str, Any], str]]:
    """Each precision and batch, and the line below its table."""
    rows = record["results"]["rows"]
    for precision, batch in dict.fromkeys((row["precision"], row["batch"]) for row in rows):
        size = next(row["shape"][-1] for row in rows)
        yield {"precision": precision, "batch": batch}, about(record, f", {precision}, batch {batch}, {size}²")


def cost() -> str:
    """The front page's table, of the first record of backbones.py."""
    record = next(records("backbones.json"))
    where, below = next(groups(record))
    networks = record["results"]["networks"]
    sides = {
        '`create_model("resunet")`, the paper\'s network': "resunet + CFII",
        '`create_model("smp-unet")` with ResNet-34': "smp.Unet resnet34 + CFII, half",
        '`CFIIWrapper.from_smp(smp.Unet("resnet34"))`': "smp.Unet resnet34 + CFII, full",
    }
    rows = []
    for title, name in sides.items():
        plain = networks[name]["baselines"][0]
        inference, training = (ratio(record, name, task=task, **where) for task in ("inference", "training"))
        parameters = f"{networks[name]['parameters_M']:.1f} M (without: {networks[plain]['parameters_M']:.1f} M)"
        speeds = times(inference["images_per_s"]), times(training["images_per_s"])
        rows.append([title, parameters, *speeds, times(training["peak"])])
    heads = ["", "parameters", "images/s, inference", "images/s, training", "peak memory, training"]
    return f"{table(heads, rows)}\n\n{below}"


def backbones() -> str:
    """Every codec with CFII beside its plain form."""
    parts = []
    for record in records("backbones*.json"):
        networks = record["results"]["networks"]
        for where, below in groups(record):
            rows = []
            for name, network in networks.items():
                row = [name, f"{network['parameters_M']:.2f}"]
                for task, keys in (("inference", ["images_per_s"]), ("training", ["images_per_s", "peak"])):
                    against = ratio(record, name, task=task, **where)
                    row.append(speed(record, name, task=task, **where))
                    row += [times(against.get(key)) for key in keys]
                rows.append(row)
            heads = ["network", "parameters, M", "inference, images/s", "to plain"]
            heads += ["training, images/s", "to plain", "peak memory, to plain"]
            parts.append(f"{table(heads, rows)}\n\n{below}")
    return "\n\n".join(parts)


def peers() -> str:
    """CFII-ResUNet beside networks of others."""
    parts = []
    for record in records("peers*.json"):
        networks = record["results"]["networks"]
        for where, below in groups(record):
            rows = []
            for name, network in networks.items():
                row = [name, f"{network['parameters_M']:.2f}"]
                for task in ("inference", "training"):
                    against = ratio(record, "CFII-ResUNet", baseline=name, task=task, **where)
                    row.append(speed(record, name, task=task, **where))
                    row.append(times(against.get("images_per_s")))
                rows.append(row)
            heads = ["network", "parameters, M", "inference, images/s", "CFII-ResUNet's, to it"]
            heads += ["training, images/s", "CFII-ResUNet's, to it"]
            parts.append(f"{table(heads, rows)}\n\n{below}")
    return "\n\n".join(parts) or "Not recorded yet."


def modules() -> str:
    """The neck and its parts beside the equations as printed."""
    parts = []
    for record in records("neck*.json"):
        measured = record["results"].get("modules", [])
        for precision in dict.fromkeys(row["precision"] for row in measured):
            rows = []
            for name in dict.fromkeys(row["network"].removesuffix(", literal") for row in measured):
                row = [name]
                for task in ("inference", "training"):
                    where = {"task": task, "precision": precision}
                    ours, printed = (best(measured, network=n, **where) for n in (name, f"{name}, literal"))
                    if ours is None or printed is None:
                        row += ["not measured"] * (2 if task == "inference" else 3)
                        continue
                    row += [f"{side['latency_median_ms']:.1f}" for side in (ours, printed)]
                    if task == "training":
                        row.append(times(ours["saved_MiB"] / max(printed["saved_MiB"], 1e-9)))
                rows.append(row)
            heads = ["part", "inference, ms", "as printed", "training, ms", "as printed", "kept, to printed"]
            parts.append(f"{table(heads, rows)}\n\n{about(record, ', ' + precision)}")
    return "\n\n".join(parts) or "Not recorded yet."


def growth() -> str:
    """A training step against the number of classes, the image's size and the network's width."""
    parts = []
    for record in records("neck*.json"):
        for section in ("classes", "resolution", "width"):
            measured = record["results"].get(section, [])
            for precision in dict.fromkeys(row["precision"] for row in measured):
                rows = []
                for name in dict.fromkeys(row["network"] for row in measured):
                    row = best(measured, network=name, precision=precision)
                    if row is not None:
                        peak = f"{row['peak_MiB']:.0f}" if "peak_MiB" in row else ""
                        rows.append([name, f"{row['latency_median_ms']:.0f}", peak])
                heads = [section, "training step, ms", "peak memory, MiB"]
                more = f", {precision}, batch {measured[0]['batch']}"
                parts.append(f"{table(heads, rows)}\n\n{about(record, more)}")
    return "\n\n".join(parts) or "Not recorded yet."


def parameters() -> str:
    """Beside the paper's tables."""
    record = next(records("parameters.json"))
    parts = []
    for title in ("Table 1", "Table 5", "Table 4"):
        rows = []
        for name, network in record["results"][title].items():
            paper = network["paper_M"]
            row = [name, "" if paper is None else f"{paper:.2f}"]
            row += [f"{network[key]:.2f}" if key in network else "" for key in ("parameters_M", "GMACs")]
            rows.append(row)
        heads = [f"{title}", "paper, M", "cfii, M", "cfii, GMACs"]
        parts.append(table(heads, rows))
    return "\n\n".join([*parts, about(record)])


def start() -> str:
    """What `from_smp` changes."""
    record = next(records("start.json"))
    rows = []
    for name, network in record["results"].items():
        changes = (f"{100 * network[start]['change']:.1f} %" for start in ("identity", "default"))
        dice = (f"{value:.3f}" for value in (network["dice"], network["identity"]["dice"]))
        rows.append([name, *changes, *dice])
    heads = ["trained model", "logits change", "with the usual start", "Dice before", "Dice after"]
    return f"{table(heads, rows)}\n\n{about(record)}"


def pipeline() -> str:
    record = next(records("pipeline.json"))
    rows = [[name, f"{rate:.0f}"] for name, rate in record["results"].items()]
    return f"{table(['data set', 'images/s'], rows)}\n\n{about(record)}"


def exports() -> str:
    """Each network and route of benchmarks/export.py: the largest difference, and for which sizes."""
    names = {"compile": "torch.compile", "pt2": ".pt2", "onnx": "ONNX"}
    parts = []
    for record in records("export*.json"):
        networks = record["results"]["networks"]
        routes = [route for route in names if any(route in network for network in networks.values())]
        rows = []
        for name, network in networks.items():
            row = [f"`{name}`", f"{network['parameters_M']:.1f}"]
            for route in routes:
                found = network.get(route, {"error": "not measured"})
                row.append(found.get("error") or f"{found['difference']:.1e}, {found['sizes']} size")
            rows.append(row)
        heads = ["network", "parameters, M", *(names[route] for route in routes)]
        parts.append(f"{table(heads, rows)}\n\n{about(record)}")
    return "\n\n".join(parts) or "Not recorded yet."


def accuracy() -> str:
    """The tables of benchmarks/accuracy.py, below what the arms that occur in them are."""
    tables = load_module("tables")
    found = tables.load(RESULTS / "accuracy")
    if not found:
        return "Not recorded yet."
    arms = about_arms()
    present = {record["arm"] for record in found}
    listed = "\n".join(f"- `{name}`: {text}" for name, text in arms.items() if name in present)
    machines = dict.fromkeys(f"{r['machine']['device']}, torch {r['machine']['torch']}" for r in found)
    return f"{listed}\n\n{tables.markdown(found, list(arms))}\n\n*{'; '.join(machines)}.*"


def load_module(name: str) -> ModuleType:
    """A module of benchmarks/, which is no package."""
    spec = spec_from_file_location(name, RESULTS.parent / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def about_arms() -> dict[str, str]:
    """What benchmarks/arms.py says of its arms; read, not imported, as it loads all that training needs."""
    for node in ast.parse((RESULTS.parent / "arms.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and [getattr(t, "id", None) for t in node.targets] == ["ABOUT"]:
            return ast.literal_eval(node.value)
    raise PluginError("accuracy: expected ABOUT in benchmarks/arms.py")


TABLES: dict[str, Callable[[], str]] = {
    f.__name__: f
    for f in (cost, backbones, peers, modules, growth, parameters, start, pipeline, exports, accuracy)
}

"""Parameters and multiply-accumulates of the reference networks, beside the paper's Tables 1, 4 and 5.

    python benchmarks/parameters.py [--model NAME[:OPTION=VALUE,...]] [--json FILE] [--plot FILE]

224 x 224, 9 classes, 3 channels. Parameters are weights and affine terms, without buffers. Multiply-accumulates
are counted by torch's FlopCounterMode on the meta device, for one image. `--model` adds any network of
create_model, with CFII and plain, and can be repeated:

    python benchmarks/parameters.py --model timm-unet:encoder_name=convnext_tiny --model smp-unet
"""

from __future__ import annotations

from pathlib import Path

import common
import torch

from cfii import create_model, summary
from cfii.training.files import writing

# label: (the paper's parameters in M, its Dice on Synapse, create_model's name and options, or None: not built)
PLAIN = {"cfii": False}
TABLE_1 = {
    "U-Net": (31.04, 76.85, ("unet", PLAIN)),
    "AttUNet": (34.88, 77.77, None),
    "R50 ViT": (103.77, 71.29, None),
    "TransUNet": (105.28, 77.48, ("transunet", PLAIN)),
    "SwinUNet": (27.17, 79.12, ("swinunet", PLAIN)),
    "UCTransNet": (66.43, 78.23, None),
    "MTUnet": (79.08, 78.59, None),
    "AFterUNet": (41.50, 81.02, None),
    "MissFormer": (42.46, 81.96, None),
    "ScaleFormer": (111.58, 82.86, None),
    "EMCAD": (26.76, 83.63, None),
    "CFII-Net": (23.49, 84.58, ("resunet", {})),
}
# Which row of Table 4 has which parts its extraction does not tell, but for the first and the "initialize" row.
TABLE_4 = {
    "all parts": (23.49, 84.58, ("resunet", {})),
    "learned embeddings (initialize)": (22.93, 81.57, ("resunet", {"embeddings": "learned"})),
    "without FEU": (None, None, ("resunet", {"update_features": False})),
    "without CEU": (None, None, ("resunet", {"update_embeddings": False})),
    "without FEU and CEU": (None, None, ("resunet", {"update_features": False, "update_embeddings": False})),
    "plain codec at full width": (None, None, ("resunet", PLAIN)),
}
TABLE_5 = {
    "U-Net": (31.04, 76.85, ("unet", PLAIN)),
    "U-Net + CFII": (29.97, 81.84, ("unet", {})),
    "TransUNet": (105.28, 77.48, ("transunet", PLAIN)),
    "TransUNet + CFII": (104.40, 81.12, ("transunet", {})),
    "SwinUNet": (27.17, 79.12, ("swinunet", PLAIN)),
    "SwinUNet + CFII": (26.75, 80.31, ("swinunet", {})),
}


def measure(name: str, options: dict) -> dict[str, float]:
    with torch.device("meta"):
        model = create_model(name, num_classes=9, **options)
    costs = summary(model).parts
    return {
        "parameters_M": costs["total"].parameters / 1e6,
        "neck_M": costs["neck"].parameters / 1e6 if "neck" in costs else 0.0,
        "GMACs": costs["total"].macs / 1e9,
    }


def run(table: dict) -> dict:
    return {
        label: {"paper_M": paper, "paper_dice": dice, **(measure(*spec) if spec else {})}
        for label, (paper, dice, spec) in table.items()
    }


def show(title: str, rows: dict) -> None:
    def cell(row: dict, key: str) -> str:
        return "-" if row.get(key) is None else f"{row[key]:.2f}"

    print(f"\n{title:34} {'paper, M':>9} {'ours, M':>9} {'neck, M':>8} {'GMACs':>8}")
    for label, row in rows.items():
        cells = (cell(row, key) for key in ("paper_M", "parameters_M", "neck_M", "GMACs"))
        print("{:34} {:>9} {:>9} {:>8} {:>8}".format(label, *cells))


def plot(rows: dict, path: Path) -> None:
    """The paper's Figure 1: bars of parameters, dots of the Dice that the paper reports for Synapse."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, left = plt.subplots(figsize=(9, 4), layout="constrained")
    right = left.twinx()
    for x, row in enumerate(rows.values()):
        ours = row.get("parameters_M")
        left.bar(
            x,
            ours or row["paper_M"],
            color="#009e73" if ours else "none",
            edgecolor="#009e73",
            hatch=None if ours else "//",
        )
        right.plot(x, row["paper_dice"], "o", color="#e69f00", markeredgecolor="black")
    left.set_xticks(range(len(rows)), rows, rotation=35, ha="right")
    left.set_ylabel("parameters, M\n(filled: counted here, hatched: the paper's)")
    right.set_ylabel("Dice on Synapse, %\n(dots: as the paper reports)")
    right.set_ylim(70, 86)
    with writing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def main() -> None:
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", default=[], metavar="NAME[:OPTION=VALUE,...]")
    parser.add_argument("--plot", type=Path, help="draw the paper's Figure 1 with these counts into this file")
    options = parser.parse_args()
    results = {"Table 1": run(TABLE_1), "Table 4": run(TABLE_4), "Table 5": run(TABLE_5)}
    for text in options.model:
        name, arguments = common.parse_model(text)
        asked = results.setdefault("Asked for", {})
        asked[f"{text}, plain"] = measure(name, {**arguments, "cfii": False})
        asked[f"{text} + CFII"] = measure(name, {**arguments, "cfii": True})
    for title, rows in results.items():
        show(title, rows)
    cfii, plain = (results["Table 4"][row] for row in ("all parts", "plain codec at full width"))
    ratio = cfii["GMACs"] / plain["GMACs"]
    print(f"\nCFII-ResUNet / plain at full width: {ratio:.3f} x the multiply-accumulates")
    if options.plot:
        plot(results["Table 1"], options.plot)
    common.record(options, results)


if __name__ == "__main__":
    main()

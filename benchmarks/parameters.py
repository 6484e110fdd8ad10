"""Parameters and multiply-accumulates of the reference networks, beside the paper's.

    python benchmarks/parameters.py [--json benchmarks/results/parameters.json]

224 x 224, 9 classes, 3 channels. Parameters are weights and affine terms, without buffers. Multiply-accumulates
are counted by torch's FlopCounterMode on the meta device, for one image.
"""

from __future__ import annotations

import common
import torch

from cfii import create_model

# name, arguments, the paper's figure in millions (Tables 1 and 4) or None where it prints none
ROWS = [
    ("ResUNet + CFII", {}, 23.49),
    ("ResUNet, plain, full width", {"cfii": False}, None),
    ("ResUNet + CFII, learned embeddings", {"embeddings": "learned"}, 22.93),
    ("ResUNet + CFII, without CEU", {"update_embeddings": False}, None),
    ("ResUNet + CFII, without FEU", {"update_features": False}, None),
]


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0]).parse_args()
    results = {}
    for name, arguments, paper in ROWS:
        with torch.device("meta"):
            model = create_model("resunet", num_classes=9, **arguments)
        results[name] = {
            "parameters_M": sum(p.numel() for p in model.parameters()) / 1e6,
            "paper_M": paper,
            "GMACs": common.multiply_accumulates(model, torch.zeros(1, 3, 224, 224)) / 1e9,
        }
    print(f"{'network':38} {'ours, M':>9} {'paper, M':>9} {'GMACs':>8}")
    for name, r in results.items():
        paper = "-" if r["paper_M"] is None else f"{r['paper_M']:.2f}"
        print(f"{name:38} {r['parameters_M']:9.2f} {paper:>9} {r['GMACs']:8.2f}")
    cfii, plain = results["ResUNet + CFII"], results["ResUNet, plain, full width"]
    print(f"CFII / plain: {cfii['GMACs'] / plain['GMACs']:.3f} x the multiply-accumulates")
    common.record(options, results)


if __name__ == "__main__":
    main()

"""Draw CFII-Net from its modules: python docs/draw.py writes docs/assets/cfii-net.svg."""

from pathlib import Path

import torch

import cfii

FILE = Path(__file__).parent / "assets" / "cfii-net.svg"


def drawing() -> str:
    with torch.device("meta"):  # shapes are enough
        model = cfii.create_model("resunet", num_classes=9)
    return cfii.diagram(model, "CFII-Net")


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(drawing(), encoding="utf-8")

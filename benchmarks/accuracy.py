"""Dice of a codec with and without CFII on a folder of images, over several seeds.

    python benchmarks/accuracy.py --data DIR [--json benchmarks/results/NAME.json]

The quickstart's training (same batches, steps and optimiser for every arm; every fifth pair held back for the
score; nothing is chosen on the held-back images), for three forms of the same codec:

- plain: no neck, full width;
- CFII, half width: as in the paper, the decoder is built for half the encoder's widths;
- CFII, full width: the neck re-joins both halves, the decoder is the plain one's.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import common
import torch

sys.path.insert(0, str(common.ROOT / "examples"))
import quickstart

from cfii import CFIIWrapper, create_model
from cfii.codecs.resunet import ResUNetEncoder
from cfii.codecs.unet import UNetDecoder


def build(arm, num_classes, in_channels, widths):
    if arm == "CFII, full width":
        encoder, decoder = ResUNetEncoder(in_channels, widths), UNetDecoder(widths)
        return CFIIWrapper(encoder, decoder, num_classes, start="default")  # trained from scratch
    return create_model("resunet", num_classes, in_channels, cfii=arm != "plain", widths=widths)


def main() -> None:
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    train, held_back, names = quickstart.load(options)
    images, labels = quickstart.stack(held_back)

    arms = ["plain", "CFII, half width", "CFII, full width"]
    results = {arm: {"dice": [], "parameters_M": 0.0} for arm in arms}
    for seed in range(options.seeds):
        options.seed, models = seed, {}
        for arm in arms:
            torch.manual_seed(seed)
            models[arm] = build(arm, len(names), images.shape[1], quickstart.WIDTHS)
            results[arm]["parameters_M"] = sum(p.numel() for p in models[arm].parameters()) / 1e6
        quickstart.fit(models, train, len(names), options)
        for arm, model in models.items():
            prediction = quickstart.predict(model, images)
            results[arm]["dice"].append(quickstart.dice_per_class(prediction, labels, len(names)))

    print(f"{len(labels)} held-back images, mean Dice of classes 1 to {len(names) - 1}, one figure a seed")
    for arm, r in results.items():
        means = [statistics.mean(scores[1:]) for scores in r["dice"]]
        shown = " ".join(f"{mean:.3f}" for mean in means)
        print(f"{arm:18} {r['parameters_M']:.2f} M  {shown}  mean {statistics.mean(means):.3f}")
    common.record(options, results)


if __name__ == "__main__":
    main()

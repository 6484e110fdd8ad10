"""What attaching CFII to a trained model does to its logits, before any further training.

    python benchmarks/start.py [--json benchmarks/results/start.json]

Each SMP model is trained briefly on the phantom, wrapped by `CFIIWrapper.from_smp`, and both predict the same
held-back slices: the change of the logits is given in units of their standard deviation, and beside it the
Dice of both (mean over classes) and the neck's parameters without a gradient after one backward.
"""

from __future__ import annotations

import common
import segmentation_models_pytorch as smp
import torch
from torch.utils.data import DataLoader

from cfii import CFIILoss, CFIIWrapper
from cfii.training.resize import Resize
from cfii.training.samples import Samples
from cfii.training.sets.phantom import CLASSES, Phantom

MODELS = [
    ("Unet", "resnet18"),
    ("FPN", "resnet18"),
    ("DeepLabV3Plus", "mobilenet_v2"),
    ("MAnet", "efficientnet-b0"),
    ("UPerNet", "mit_b0"),
]


def batches(count, batch_size, size, seed):
    """(images, labels) of phantoms."""
    for batch in DataLoader(Samples(Phantom(count, size, seed), Resize(size)), batch_size):
        yield batch["image"], batch["label"].long()


def train(model, steps, size):
    loss, optimizer = CFIILoss(len(CLASSES)), torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    for images, labels in batches(8 * steps, 8, size, seed=1):
        optimizer.zero_grad()
        loss(model(images), labels).backward()
        optimizer.step()


def dice(logits, labels):
    prediction, n = logits.argmax(1), logits.shape[1]
    p, t = (torch.nn.functional.one_hot(x, n).double() for x in (prediction, labels))
    return (2 * (p * t).sum((0, 1, 2)) / (p + t).sum((0, 1, 2)).clamp_min(1)).mean().item()


def main() -> None:
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--size", type=int, default=96)
    options = parser.parse_args()
    images, labels = next(batches(16, 16, options.size, seed=2))
    results = {}
    for architecture, encoder in MODELS:
        torch.manual_seed(0)
        model = getattr(smp, architecture)(encoder, encoder_weights=None, in_channels=1, classes=len(CLASSES))
        train(model, options.steps, options.size)
        with torch.no_grad():
            before = model.eval()(images)
            changes = {}
            for start in ("identity", "default"):
                wrapped = CFIIWrapper.from_smp(model, start=start).eval()
                after = wrapped(images)
                changes[start] = {
                    "change": ((after - before).std() / before.std()).item(),
                    "dice": dice(after, labels),
                }
        dead = common.neck_without_gradient(CFIIWrapper.from_smp(model), images[:2])
        name = f"{architecture} {encoder}"
        results[name] = {"dice": dice(before, labels), "without_gradient": dead, **changes}
        r = results[name]
        print(
            f"{name:28} Dice {r['dice']:.3f}; identity start: {100 * r['identity']['change']:.1f} % "
            f"(Dice {r['identity']['dice']:.3f}); usual initialisation: {100 * r['default']['change']:.1f} % "
            f"(Dice {r['default']['dice']:.3f}); neck parameters without gradient: {len(dead)}"
        )
    common.record(options, results)


if __name__ == "__main__":
    main()

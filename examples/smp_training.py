"""An ordinary training loop around a segmentation-models-pytorch (SMP) model with CFII attached.

    pip install "cfii[train]"
    python examples/smp_training.py                # a generated phantom, a minute or two on two CPU cores
    python examples/smp_training.py --data DIR     # images and masks, in any layout of docs/data.md

To use it on your own loaders: they give images (B, C, H, W) in float32 and labels (B, H, W), whole numbers.
"""

import argparse

import segmentation_models_pytorch as smp
import torch
from safetensors.torch import save_model

from cfii import CFIILoss, CFIIWrapper
from cfii.training.data import SegmentationData


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="a folder of images and masks; by default the phantom")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--out", default="smp_training.safetensors", help="the best epoch's weights")
    args = parser.parse_args(arguments)

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = "folder" if args.data else "phantom"
    data = SegmentationData(name, args.data, args.size, batch_size=args.batch, num_workers=0)
    channels, classes = data.cases("train").channels, len(data.cases("train").classes)

    # encoder_weights="imagenet" downloads trained weights. The paper's form, with the decoder at half width, is
    # cfii.create_model("smp-unet", classes, channels, encoder_name="resnet18").
    unet = smp.Unet("resnet18", encoder_weights=None, in_channels=channels, classes=classes)
    model = CFIIWrapper.from_smp(unet).to(device)
    criterion = CFIILoss(classes)  # Dice + cross-entropy + 0.3 * distance of the class embeddings
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    train, val = data.train_dataloader(), data.val_dataloader()
    losses, scores = [], []
    for epoch in range(args.epochs):
        model.train()
        train.sampler.set_epoch(epoch)  # another order
        for batch in train:
            images, labels = batch["image"].to(device), batch["label"].to(device)
            loss = criterion(model(images, return_aux=True), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())

        model.eval()
        counts = []
        with torch.no_grad():
            for batch in val:
                predicted, labels = model(batch["image"].to(device)).argmax(1).cpu(), batch["label"].long()
                counts.append(smp.metrics.get_stats(predicted, labels, mode="multiclass", num_classes=classes))
        foreground = [torch.cat(part)[:, 1:] for part in zip(*counts, strict=True)]  # all but the background
        scores.append(smp.metrics.f1_score(*foreground, reduction="macro").item())
        mean = sum(losses[-len(train) :]) / len(train)
        print(f"epoch {epoch}: loss {mean:.3f}, Dice on held-back images {scores[-1]:.3f}")
        if scores[-1] == max(scores):
            save_model(model, args.out)  # safetensors.torch.load_model reads it
    return model, losses, scores


if __name__ == "__main__":
    main()

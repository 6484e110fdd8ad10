"""Fine-tune a trained segmentation-models-pytorch model with CFII attached: frozen encoder first, then all of it.

    pip install "cfii[train]"
    python examples/finetune_smp.py                            # trains a small model first, to have one
    python examples/finetune_smp.py --model DIR --data DIR     # yours, as SMP's save_pretrained wrote it

Attaching changes the logits by about 1 % of their standard deviation, so training goes on where it stood.
"""

import argparse

import segmentation_models_pytorch as smp
import torch

from cfii import CFIILoss, CFIIWrapper
from cfii.training.data import SegmentationData


def train(model, optimizer, data, criterion, epochs):
    for epoch in range(epochs):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            output = model(batch["image"], return_aux=True) if hasattr(model, "neck") else model(batch["image"])
            optimizer.zero_grad()
            criterion(output, batch["label"]).backward()
            optimizer.step()


def dice_loss(model, data, criterion):
    model.eval()
    with torch.no_grad():
        losses = [criterion.terms(model(b["image"]), b["label"])["dice"].item() for b in data.val_dataloader()]
    model.train()
    return sum(losses) / len(losses)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a trained SMP model; by default one is trained")
    parser.add_argument("--data", help="a folder of images and masks; by default the phantom")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=1, help="of each part")
    args = parser.parse_args(arguments)

    torch.manual_seed(0)
    name = "folder" if args.data else "phantom"
    data = SegmentationData(name, args.data, args.size, batch_size=args.batch, num_workers=0)
    channels, classes = data.cases("train").channels, len(data.cases("train").classes)
    criterion = CFIILoss(classes)
    if args.model:
        trained = smp.from_pretrained(args.model)
    else:
        small = {"encoder_depth": 4, "encoder_weights": None, "decoder_channels": (128, 64, 32, 16)}
        trained = smp.Unet("resnet18", **small, in_channels=channels, classes=classes)
        train(trained, torch.optim.AdamW(trained.parameters(), lr=1e-3), data, criterion, args.epochs)
    losses = {"trained": dice_loss(trained, data, criterion)}

    model = CFIIWrapper.from_smp(trained)  # shares encoder, decoder and head
    losses["attached"] = dice_loss(model, data, criterion)

    model.freeze_encoder()  # no gradients, batch statistics fixed: what is new learns first
    train(model, torch.optim.AdamW(model.parameter_groups(lr=1e-3, encoder_lr=0.0)), data, criterion, args.epochs)
    losses["encoder frozen"] = dice_loss(model, data, criterion)

    model.unfreeze_encoder()  # a new optimiser, as the old one does not know the encoder
    optimizer = torch.optim.AdamW(model.parameter_groups(lr=3e-4, encoder_lr=3e-5))
    train(model, optimizer, data, criterion, args.epochs)
    losses["all"] = dice_loss(model, data, criterion)
    for name, loss in losses.items():
        print(f"{name:15} Dice loss on held-back images {loss:.3f}")
    return model, losses


if __name__ == "__main__":
    main()
